//! One health check of one backend.
//!
//! In: the backend, what it is asked, a kept connection if there is one. Out: its answer,
//! and what it turned out to be able to do. Each step has a bound: the check's timeout.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout_at;
use tokio_rustls::rustls::ClientConfig;

use super::ask::{HealthConnection, Reply, Watch};
use crate::backend_channel::Tls;
use crate::backend_channel::tls::name_or_address;
use crate::catalog::{HealthAnswer, HealthTarget};
use crate::clock;

/// A check to make.
pub(super) struct Probe {
    pub(super) target: HealthTarget,
    /// Set if the target asks for TLS.
    pub(super) config: Option<Arc<ClientConfig>>,
    /// The connection that is kept for watching.
    pub(super) kept: Option<HealthConnection>,
    pub(super) ability: Ability,
    /// Whether a connection may be kept for watching.
    pub(super) may_watch: bool,
}

/// The result of a check.
pub(super) struct Probed {
    /// The answer; `None` if the check failed on this side.
    pub(super) answer: Option<HealthAnswer>,
    pub(super) ability: Ability,
    /// A new connection over which the backend pushes its states.
    pub(super) keep: Option<(HealthConnection, Watch)>,
    /// Whether the kept connection is of no use any more.
    pub(super) lost: bool,
}

/// What a backend has of `grpc.health.v1`, and when that turned out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Ability {
    /// Both `Watch` and `Check`, as far as is known.
    #[default]
    Watch,
    /// Only `Check`.
    Check(Instant),
    /// Nothing, so a connection must suffice.
    Connect(Instant),
}

/// How long a backend counts as lacking what it lacked: another process may listen there
/// then.
const LACKS_FOR: Duration = Duration::from_secs(600);

impl Ability {
    /// Returns the ability of a backend whose watches do not last.
    pub(super) fn check_since(now: Instant) -> Self {
        Self::Check(now)
    }

    /// Returns the ability, unless it was found out too long ago.
    pub(super) fn now(self, now: Instant) -> Self {
        match self {
            Self::Check(at) | Self::Connect(at) if now.duration_since(at) > LACKS_FOR => {
                Self::Watch
            }
            known => known,
        }
    }
}

/// Asks a backend.
pub(super) async fn probe<S>(
    Probe { target, config, kept, ability, may_watch }: Probe,
    connect: &impl AsyncFn(SocketAddr) -> io::Result<S>,
) -> Probed
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let timeout = target.check.timeout;
    let had = kept.is_some();
    if let Some(mut connection) = kept {
        let asked = timeout_at(deadline(timeout), connection.check()).await;
        // If it reports no state, the connection may be the cause, so a new one is tried.
        let answer = asked.ok().and_then(|reply| reply.as_state());
        if let Some(answer) = answer {
            return Probed { answer: Some(answer), ability, keep: None, lost: false };
        }
    }
    let until = deadline(timeout);
    let probed = |answer, ability, keep| Probed { answer, ability, keep, lost: had };
    let io = match timeout_at(until, connect(target.addr.socket_addr())).await {
        Ok(Ok(io)) => io,
        // It may be another process the next time.
        Ok(Err(error)) => return probed(unconnected(&error), Ability::Watch, None),
        Err(_) => return probed(Some(HealthAnswer::Unreachable), Ability::Watch, None),
    };
    let Some(service) = target.check.grpc.clone() else {
        return probed(Some(HealthAnswer::Alive), ability, None);
    };
    if matches!(ability, Ability::Connect(_)) {
        return probed(Some(HealthAnswer::Alive), ability, None);
    }
    let name = target.check.tls.as_ref().and_then(|tls| tls.name.as_deref());
    let tls = match config.map(|config| (config, name_or_address(name, target.addr.ip()))) {
        None => None,
        Some((config, Ok(name))) => Some(Tls { config, name }),
        Some((_, Err(_))) => return probed(None, ability, None),
    };
    // That it connects says that it is there. An answer that had no time any more would count
    // as the word of a backend that hangs, though packets were lost.
    let until = deadline(timeout);
    let authority = name.map_or_else(|| target.addr.to_string(), str::to_owned);
    let opened = HealthConnection::open(io, tls, &authority, service);
    let mut connection = match timeout_at(until, opened).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(_)) => return probed(Some(HealthAnswer::Broken), Ability::Watch, None),
        Err(_) => return probed(Some(HealthAnswer::Silent), Ability::Watch, None),
    };
    let mut ability = ability;
    if may_watch && ability == Ability::Watch {
        match timeout_at(until, first_state(&mut connection)).await {
            Ok(Ok((watch, answer))) => {
                return probed(Some(answer), ability, Some((connection, watch)));
            }
            Ok(Err(Reply::Nothing)) => ability = Ability::Check(clock::now()),
            // `Check` has the last word.
            Ok(Err(_)) => {}
            Err(_) => return probed(Some(HealthAnswer::Silent), ability, None),
        }
    }
    let answer = match timeout_at(until, connection.check()).await {
        Err(_) => HealthAnswer::Silent,
        Ok(reply) => match (reply.as_state(), reply) {
            (Some(state), _) => state,
            (None, Reply::Failed(_)) => HealthAnswer::Fails,
            (None, Reply::Lost(_)) => HealthAnswer::Broken,
            (None, _) => {
                ability = Ability::Connect(clock::now());
                HealthAnswer::Alive
            }
        },
    };
    probed(Some(answer), ability, None)
}

/// Opens a watch and waits for its first state.
async fn first_state(connection: &mut HealthConnection) -> Result<(Watch, HealthAnswer), Reply> {
    let mut watch = connection.watch().await?;
    let reply = watch.next().await;
    let answer = reply.as_state().ok_or(reply)?;
    Ok((watch, answer))
}

/// Returns what a failed connection says of the backend; `None` if it says nothing.
fn unconnected(error: &io::Error) -> Option<HealthAnswer> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Some(HealthAnswer::Refuses),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Some(HealthAnswer::Broken),
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Some(HealthAnswer::Unreachable)
        }
        // No descriptor, port, memory or permission: the failure is on this side.
        _ => None,
    }
}

fn deadline(timeout: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + timeout
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BackendAddr;
    use crate::settings::HealthCheck;

    #[test]
    fn a_failure_on_this_side_says_nothing() {
        let check = |kind: ErrorKind, expected| assert_eq!(unconnected(&kind.into()), expected);
        check(ErrorKind::ConnectionRefused, Some(HealthAnswer::Refuses));
        check(ErrorKind::HostUnreachable, Some(HealthAnswer::Unreachable));
        check(ErrorKind::AddrNotAvailable, None);
        check(ErrorKind::PermissionDenied, None);
        assert_eq!(unconnected(&io::Error::from_raw_os_error(24)), None, "too many open files");
    }

    /// Else a lost packet would pass for the word of the backend itself.
    #[tokio::test(start_paused = true)]
    async fn an_answer_may_take_its_time_however_long_the_connection_took() {
        let (_reporter, service) = tonic_health::server::health_reporter();
        let second = Duration::from_secs(1);
        let check =
            HealthCheck { grpc: Some("".into()), interval: second, timeout: second, tls: None };
        let addr = BackendAddr::new([192, 0, 2, 1].into(), 80).unwrap();
        let connect = async |_| {
            tokio::time::sleep(Duration::from_millis(900)).await;
            let (here, there) = tokio::io::duplex(1 << 16);
            let server = tonic::transport::Server::builder().add_service(service.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let incoming = futures_util::stream::iter([Ok::<_, io::Error>(there)]);
                server.serve_with_incoming(incoming).await
            });
            Ok(here)
        };
        let target = HealthTarget { addr, check: Arc::new(check) };
        let (ability, may_watch) = (Ability::default(), false);
        let one = Probe { target, config: None, kept: None, ability, may_watch };
        assert_eq!(probe(one, &connect).await.answer, Some(HealthAnswer::Serving));
    }

    #[test]
    fn what_a_backend_lacks_is_tried_again_after_a_while() {
        let now = Instant::now();
        for lacks in [Ability::Check(now), Ability::Connect(now)] {
            assert_eq!(lacks.now(now + LACKS_FOR), lacks);
            assert_eq!(lacks.now(now + LACKS_FOR * 2), Ability::Watch);
        }
    }
}
