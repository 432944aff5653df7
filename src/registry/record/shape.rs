//! Finds out which formats a key may have, by its shape alone.
//!
//! In: a format and a key. Out: whether the format's registrants write such keys.
//! Decoding does not use this; it serves to suggest another format for rejected keys.

use super::format::Format;
use crate::model::HostPort;

impl Format {
    /// Returns whether the format's registrants write such keys. A prefix may end
    /// anywhere, so only the part that follows every prefix, or a fixed part of it, is
    /// compared.
    #[must_use]
    pub fn writes_keys_like(&self, key: &str) -> bool {
        let last = key.rsplit('/').next().unwrap_or_default();
        let address = HostPort::parse_last_colon(last).is_ok();
        let holds = |segment: &str| key.split('/').any(|one| one == segment);
        match self {
            Self::DubboApp | Self::Kitex | Self::Hertz => address,
            Self::GoZero => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
            Self::Registrator => last.matches(':').count() >= 2,
            Self::Skydns => key.trim_start_matches('/').starts_with("skydns/"),
            Self::Apisix => holds("upstreams"),
            Self::Dubbo => holds("providers") && last.contains("%3A%2F%2F"),
            Self::Rpcx => last.split_once('@').is_some_and(|(network, _)| !network.is_empty()),
            Self::Jupiter => key.contains(":v1:"),
            Self::Jupiter2020 => key.contains("/providers/") && key.contains("://"),
            Self::GoFrame => {
                key.matches('/').count() >= 3
                    && last.split(',').all(|one| HostPort::parse(one).is_ok())
            }
            // Their registrants may write any key.
            Self::Auto
            | Self::Plain
            | Self::Qsf
            | Self::EtcdNaming
            | Self::Kratos
            | Self::KratosV1
            | Self::GoMicro
            | Self::GoKit
            | Self::Custom(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::record::NAMED;
    use crate::registry::record::presets::tests::SAMPLES;

    #[test]
    fn every_format_knows_its_own_keys_again() {
        for (prefix, key, _) in SAMPLES {
            let (_, format) = prefix.rsplit_once('=').unwrap();
            let format: Format = format.parse().unwrap();
            assert!(format.writes_keys_like(key), "{format}: {key}");
        }
    }

    #[test]
    fn keys_tell_formats_apart() {
        let like = |key: &str| {
            let all = NAMED.iter().filter(|(_, format)| format.writes_keys_like(key));
            all.map(|(name, _)| *name).collect::<Vec<_>>()
        };
        let any =
            ["etcd-naming", "qsf", "kratos", "kratos-v1", "go-micro", "plain", "go-kit", "auto"];
        let sorted = |mut all: Vec<&'static str>| {
            all.sort_unstable();
            all
        };
        let and = |more: &[&'static str]| sorted([&any[..], more].concat());
        assert_eq!(sorted(like("/skydns/local/skydns/a/x1")), and(&["skydns"]));
        assert_eq!(sorted(like("/services/app/i-1")), and(&[]));
        assert_eq!(
            sorted(like("/s/app/10.0.0.1:80")),
            and(&["dubbo-app", "kitex", "hertz", "goframe"])
        );
    }
}
