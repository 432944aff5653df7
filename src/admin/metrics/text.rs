//! The two text formats of metrics, and the choice between them.
//!
//! In: the header `Accept`, and OpenMetrics text. Out: the wanted format, and the metrics
//! in it: OpenMetrics, or Prometheus's own older text format.

/// The format of a scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus's own format, which all readers understand, people with curl included.
    Prometheus,
    /// OpenMetrics, for clients that ask for it by name.
    OpenMetrics,
}

impl Format {
    /// Returns the format for an `Accept` header: OpenMetrics if it is named and
    /// preferred at least as much.
    pub(super) fn wanted(accept: &str) -> Self {
        let (mut open, mut plain) = (0.0_f32, 0.0_f32);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut quality: f32 = 1.0;
            let mut version = None;
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            match (kind.as_str(), version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => open = quality.max(open),
                ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => {
                    plain = quality.max(plain);
                }
                _ => {}
            }
        }
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Converts OpenMetrics text to this format. Prometheus's older format differs in two
    /// ways: a counter is also announced with `_total` at the end of its name, and the
    /// end of the text is not marked.
    pub(super) fn write(self, open: String) -> String {
        if self == Self::OpenMetrics {
            return open;
        }
        let mut lines = open.lines().peekable();
        let mut plain = String::with_capacity(open.len());
        while let Some(line) = lines.next() {
            let counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
            let announced = line.strip_prefix("# HELP ").zip(lines.peek());
            match announced.and_then(|(help, kind)| Some((help.split_once(' ')?, kind))) {
                Some(((name, help), kind)) if counter(kind) => {
                    plain.push_str(&format!("# HELP {name}_total {help}\n"));
                    plain.push_str(&format!("# TYPE {name}_total counter\n"));
                    lines.next();
                }
                _ if line == "# EOF" => {}
                _ => plain.extend([line, "\n"]),
            }
        }
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::Format::{OpenMetrics, Prometheus};
    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_wanted() {
        let check = |accept, expected| assert_eq!(Format::wanted(accept), expected, "{accept}");
        check("", Prometheus);
        check("*/*", Prometheus);
        check("text/html,application/xhtml+xml,*/*;q=0.8", Prometheus);
        check("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Prometheus);
        check("application/openmetrics-text", OpenMetrics);
        check("Application/OpenMetrics-Text; version=\"1.0.0\"", OpenMetrics);
        check("application/openmetrics-text;q=0", Prometheus);
        check("application/openmetrics-text;version=0.0.1", Prometheus);
        check("application/openmetrics-text;q=0.2,text/plain;q=0.8", Prometheus);
        // Prometheus 3, then Prometheus 2.
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            OpenMetrics,
        );
        check(
            "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Prometheus,
        );
    }

    #[test]
    fn counters_are_announced_by_their_whole_names() {
        let open = "# HELP a Things.\n# TYPE a counter\na_total 1\n# HELP b Now.\n\
                    # TYPE b gauge\nb{x=\"y\"} 2\n# EOF\n";
        let plain = "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n# HELP b Now.\n\
                     # TYPE b gauge\nb{x=\"y\"} 2\n";
        assert_eq!(Format::Prometheus.write(open.to_owned()), plain);
        assert_eq!(Format::OpenMetrics.write(open.to_owned()), open);
    }
}
