//! Properties of the client at the other end of a stream.
//!
//! In: a client's user agent and the name that it asks for. Out: a [`ClientProfile`].

use super::Selector;

/// The gRPC implementation that a client is built on. Implementations differ in how they
/// react to an empty list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientKind {
    /// grpc-go.
    Go,
    /// grpc-java.
    Java,
    /// C-core: C++, Python, Ruby, PHP, Objective-C.
    Core,
    /// grpc-js with grpc-js-xds. It has no grpclb.
    Node,
    /// tonic-xds. It has no grpclb.
    Rust,
    /// Any other implementation.
    Other,
}

/// The implementation and the selectors of a client. The selectors decide which list it
/// gets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientProfile {
    /// Read from its user agent.
    pub kind: ClientKind,
    /// Read from the name that it asks for.
    pub selectors: Vec<Selector>,
}

impl ClientKind {
    /// Reads a `user-agent` header: `grpc-go/1.85.0`, `grpc-java-netty/1.60.0`,
    /// `grpc-python/1.85.1 grpc-c/58.0.0 (linux; chttp2)`. An application may put words
    /// of its own in front.
    #[must_use]
    pub fn from_user_agent(user_agent: &str) -> Self {
        let has = |name: &str| user_agent.split([' ', '/']).any(|word| word.starts_with(name));
        if has("grpc-go") {
            Self::Go
        } else if has("grpc-java") {
            Self::Java
        } else if has("grpc-c") {
            Self::Core
        } else {
            Self::Other
        }
    }

    /// Reads the `user_agent_name` of an xDS client: `gRPC Go`, `gRPC Java`,
    /// `gRPC C-core linux`, `gRPC Node Pure JS`, `gRPC Rust tonic-xds`.
    #[must_use]
    pub fn from_xds_agent(name: &str) -> Self {
        match name.strip_prefix("gRPC ").and_then(|rest| rest.split(' ').next()) {
            Some("Go") => Self::Go,
            Some("Java") => Self::Java,
            Some("C-core") => Self::Core,
            Some("Node") => Self::Node,
            Some("Rust") => Self::Rust,
            _ => Self::Other,
        }
    }

    /// Returns whether an xDS client of this kind gives each backend its share of the calls.
    /// tonic-xds takes the less busy of two backends at random.
    #[must_use]
    pub fn obeys_weights(self) -> bool {
        self != Self::Rust
    }

    /// Returns whether an xDS client of this kind drops the calls that it is told to drop.
    #[must_use]
    pub fn obeys_drops(self) -> bool {
        self != Self::Rust
    }

    /// Returns the name that logs and metrics show.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Java => "java",
            Self::Core => "core",
            Self::Node => "node",
            Self::Rust => "rust",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agents_as_seen_in_the_field() {
        let check = |user_agent, kind| {
            assert_eq!(ClientKind::from_user_agent(user_agent), kind, "{user_agent}");
        };
        check("grpc-go/1.85.0-dev", ClientKind::Go);
        check("my-app/2 grpc-go/1.33.3", ClientKind::Go);
        check("grpc-python/1.85.1 grpc-c/58.0.0 (linux; chttp2)", ClientKind::Core);
        check("grpc-ruby/1.51.1 grpc-c/29.0.0 (linux; chttp2)", ClientKind::Core);
        check("grpc-c++/1.51.1 grpc-c/29.0.0 (linux; chttp2)", ClientKind::Core);
        check("grpc-java-netty/1.41.3", ClientKind::Java);
        check("tonic/0.14", ClientKind::Other);
        check("", ClientKind::Other);
    }

    #[test]
    fn xds_clients_are_known_by_what_they_say_of_themselves() {
        let check = |name, kind| assert_eq!(ClientKind::from_xds_agent(name), kind, "{name}");
        check("gRPC Go", ClientKind::Go);
        check("gRPC Java", ClientKind::Java);
        check("gRPC C-core linux Python", ClientKind::Core);
        check("gRPC Node Pure JS", ClientKind::Node);
        check("gRPC Rust tonic-xds", ClientKind::Rust);
        check("envoy", ClientKind::Other);
        check("", ClientKind::Other);
    }
}
