//! Writes docs/policy-figures.md, and the plots in docs/policy.
//!
//! In: the goals and the plots. Out: the files, whole.

use std::fmt::Write as _;
use std::path::Path;

use super::goals::{self, Goal};
use super::plots::Plot;

const HEAD: &str = "# Figures of traffic policy

`make bench-policy` writes this page and its plots, and fails if a figure misses its limit, \
or gets worse where it is known to miss it. The simulator (`benches/policy`) uses the program's own cycles, windows and passes. All \
follows from seeds, so every run gives the same figures.

Clients walk their lists call by call as the real ones do: grpc-java begins each list at its \
first entry, C-core and grpc-go at a random one. The scenes differ in when clients call, and \
in what is counted:

| scene | calls | counted |
|---|---|---|
| shares, starting | at random moments (Poisson), or a whole list | calls of each backend. For flapping and panic: lists; for a canary by clients: clients |
| feedback | at even gaps, each client at the same rate | calls of each backend by its capacity, in each 10 s |
| overload | at random moments; each call waits in the queue of its backend | calls that are answered within a second |
| zones | at random moments while the demand stands still; at even gaps, at a rate that moves, while it moves | calls of each zone by its backends, in each 10 s from the second minute on |
| subsets | at even gaps, at each client's own rate | calls of each backend; for connections and changes: entries of lists |
| keys | none: keys have loads | the load of each backend; keys that move |
| bursts | at random moments; each call takes its time on its backend | the time of a call |

A figure without a limit is there to compare with. Max/mean is over backends, unless the \
row says otherwise.

";

/// What no figure shows.
const NOTES: &str = "
What is not met, and what is not what it seems:

- Zones whose demand moves by 20 %: at most 1.07 in 99 of 100 steps and at most three changes \
an hour exclude each other by this rule: the split in force stands until the hottest zone would \
have more than 1.05 times its share. With 1.04, p99 falls by 0.006, and there are half as many \
changes again. A new split half of the way between the demand before and now, or between now \
and the mean of half an hour, gains less than 0.005, because it stands for a shorter time. \
Demand that is smoothed over 15 s in place of 90 s, with 1.066 and the latter split, comes to \
1.029, 1.071 and 2.94 changes. But calls come at even gaps here. If they come at random, at 30 \
a second in all, then smoothing over 45 s with 1.06 costs 15 changes an hour in place of 7, and \
p99 stays the same. So the smoothing stays. With a new split every 10 s, p99 would be 1.029.
- Three replicas: the demand of a third of the clients moves more, so each replica waits for \
1.075 in place of 1.05. The sum moves less than its parts.
- Feedback: an estimate that differs from the median by less than twice its likely error counts \
as equal. Without that rule, a start took 179 s in the mean, and with 10 % noise max/mean was \
1.078, with 1.07 list changes a minute.
- A backend that joins or leaves moves whole backends between cells: mostly one, sometimes \
more. So the limits of 1.2/n and 1.5/n of the connections hold for means over many events, at \
the worst size of a service, and a single event has a limit of its own. A table without such \
moves would leave connections uneven by 1.4 to 1.5.
- Goodput over the whole of an overload cannot reach the capacity with reports every 10 s: the \
first 15 to 30 s are lost. After that, the utilisation that is aimed at (95 %) is the limit.
- P2C and Prequal choose by call, and so escape a machine that is slow for a second. Lists do \
not compete with that; clients may use such a policy on top.
";

pub(crate) fn write(goals: &[Goal], plots: &[Plot]) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut text = format!("{HEAD}{}{NOTES}", goals::table(goals));
    for Plot { name, alt, svg } in plots {
        let _ = write!(text, "\n![{alt}](policy/{name}.svg)\n");
        put(&docs.join(format!("policy/{name}.svg")), svg);
    }
    put(&docs.join("policy-figures.md"), &text);
}

fn put(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    println!("wrote {}", path.display());
}
