//! Parses weights as registrants write them: numbers, texts, fractions, nonsense.
//!
//! In: a JSON value, and the format's meaning of the weights 0 and below. Out: always a
//! weight, with a remark if it is not the one that was written.

use serde_json::Value;

use super::remarks::{Remarks, shown};
use crate::model::Weight;

/// The greatest weight. A greater one is a mistake, and lists could not express it
/// anyway.
pub(super) const WEIGHT_MAX: u32 = 1_000_000;

/// How a format's own resolver treats weights that are not above 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum LowWeights {
    /// 0 means no traffic. Below 0 the default is used.
    #[default]
    ZeroIsNone,
    /// 0 and below mean no traffic.
    AllAreNone,
    /// 0 means "not set": the default is used, as for weights below 0.
    NotSet,
}

/// Returns the weight to use.
pub(super) fn weight(
    written: Option<&Value>,
    default: u32,
    low: LowWeights,
    remarks: &Remarks,
) -> Weight {
    let Some(value) = written.filter(|value| !value.is_null()) else { return Weight(default) };
    let counts = |weight: u32, why: &str| {
        remarks.add(format!("the weight {} {why}: {weight} counts", shown(value)));
        Weight(weight)
    };
    let Some(number) = number(value) else {
        let says_nothing = value.as_str().is_some_and(|text| text.trim().is_empty());
        return if says_nothing { Weight(default) } else { counts(default, "is no number") };
    };
    if number < 0.0 {
        let instead = if low == LowWeights::AllAreNone { 0 } else { default };
        return counts(instead, "is below 0");
    }
    if number == 0.0 {
        return Weight(if low == LowWeights::NotSet { default } else { 0 });
    }
    if number > f64::from(WEIGHT_MAX) {
        return counts(WEIGHT_MAX, &format!("is over {WEIGHT_MAX}"));
    }
    // Rounding must not take away a small share.
    let whole = number.round().max(1.0) as u32;
    if number.fract() == 0.0 { Weight(whole) } else { counts(whole, "is no whole number") }
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(written: &Value, low: LowWeights, weight: u32, remark: &str) {
        let remarks = Remarks::default();
        let found = super::weight(Some(written), 100, low, &remarks);
        let said_of_it = remarks.into_vec().first().map_or(String::new(), ToString::to_string);
        assert_eq!((found.0, said_of_it.as_str()), (weight, remark), "{written}");
    }

    #[test]
    fn whatever_is_said_something_counts() {
        let low = LowWeights::ZeroIsNone;
        for (written, weight) in [
            (json!(7), 7),
            (json!("7"), 7),
            (json!(" 7 "), 7),
            (json!(7.0), 7),
            (json!("7.0"), 7),
            (json!(1_000_000), 1_000_000),
            (json!(null), 100),
            (json!(""), 100),
            (json!(0), 0),
            (json!("0"), 0),
            (json!(-0.0), 0),
        ] {
            check(&written, low, weight, "");
        }
        check(&json!("high"), low, 100, r#"the weight "high" is no number: 100 counts"#);
        check(&json!("NaN"), low, 100, r#"the weight "NaN" is no number: 100 counts"#);
        check(&json!(true), low, 100, "the weight true is no number: 100 counts");
        check(&json!([7]), low, 100, "the weight [7] is no number: 100 counts");
        check(&json!(-1), low, 100, "the weight -1 is below 0: 100 counts");
        check(&json!("-1"), low, 100, r#"the weight "-1" is below 0: 100 counts"#);
        check(&json!(0.001), low, 1, "the weight 0.001 is no whole number: 1 counts");
        check(&json!("2.5"), low, 3, r#"the weight "2.5" is no whole number: 3 counts"#);
        let huge = "the weight 18446744073709551615 is over 1000000: 1000000 counts";
        check(&json!(u64::MAX), low, 1_000_000, huge);
        let text = r#"the weight "1e300" is over 1000000: 1000000 counts"#;
        check(&json!("1e300"), low, 1_000_000, text);
    }

    #[test]
    fn formats_differ_in_what_0_and_less_mean() {
        check(&json!(0), LowWeights::NotSet, 100, "");
        check(&json!(-1), LowWeights::NotSet, 100, "the weight -1 is below 0: 100 counts");
        check(&json!(0), LowWeights::AllAreNone, 0, "");
        check(&json!(-1), LowWeights::AllAreNone, 0, "the weight -1 is below 0: 0 counts");
    }
}
