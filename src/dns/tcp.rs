//! Answers questions by TCP: after a truncated answer, or by the asker's choice.
//!
//! In: a listener. Out: answers, in the order of their questions (RFC 7766).
//! It bounds the number of connections and ends silent ones. It does little work for
//! one connection before the others, and questions by UDP, have their turn.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::{clock, seed};

use super::answer::{QUERY_MAX, transfer};
use super::work_limit::{self, WorkLimit};
use super::{Answers, Infallible, IpAddr, PAUSE, Transport, io};

/// The most connections at a time. When one more comes, the oldest ends, so an asker
/// that opens many silent connections does not shut out others.
const CONNECTIONS_MAX: usize = 256;
/// How long a question or an answer may be on its way, and how long a connection may be
/// idle. RFC 7766 (6.2.3) wants seconds; no asker asks often enough to gain from more.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The cost of every answer besides its bytes, in steps: reading, parsing, system calls.
const STEPS_MIN: usize = 256;

pub(super) async fn answer_all(listener: &TcpListener, answers: &Answers) -> Infallible {
    let work_limit = Mutex::new(WorkLimit::new(work_limit::TCP, seed::random(), clock::now()));
    let mut open = FuturesUnordered::new();
    let mut handles: BTreeMap<u64, AbortHandle> = BTreeMap::new();
    let mut number = 0_u64;
    loop {
        tokio::select! {
            (stream, asker) = accept(listener) => {
                if handles.len() >= CONNECTIONS_MAX
                    && let Some((_, oldest)) = handles.pop_first()
                {
                    oldest.abort();
                }
                let (served, handle) = abortable(serve_connection(stream, asker, answers, &work_limit));
                let this = number;
                handles.insert(this, handle);
                open.push(async move {
                    if let Ok(Err(error)) = served.await {
                        tracing::trace!(%error, "connection ended");
                    }
                    this
                });
                number += 1;
            }
            Some(ended) = open.next() => {
                handles.remove(&ended);
            }
        }
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, asker)) => return (stream, asker.ip()),
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end.
async fn serve_connection(
    mut stream: TcpStream,
    asker: IpAddr,
    answers: &Answers,
    work_limit: &Mutex<WorkLimit>,
) -> io::Result<()> {
    let arrival = stream.local_addr()?.ip();
    stream.set_nodelay(true)?;
    let mut query = Vec::new();
    loop {
        timeout(SILENCE_MAX, read(&mut stream, &mut query)).await??;
        if let Some(messages) = transfer(&query, asker, answers) {
            for message in messages {
                write(&mut stream, &message).await?;
                match charge(work_limit, asker, STEPS_MIN + message.len()) {
                    Duration::ZERO => tokio::task::yield_now().await,
                    wait => tokio::time::sleep(wait).await,
                }
            }
            continue;
        }
        let (reply, steps) = answer(&query, (asker, arrival), answers);
        let Some(reply) = reply else { return Ok(()) };
        write(&mut stream, &reply).await?;
        match charge(work_limit, asker, steps) {
            // The same task answers questions by UDP.
            Duration::ZERO => tokio::task::yield_now().await,
            wait => tokio::time::sleep(wait).await,
        }
    }
}

/// Returns the messages of the whole zone, if a secondary asks for it.
fn transfer(query: &[u8], asker: IpAddr, answers: &Answers) -> Option<Vec<Vec<u8>>> {
    let asked = transfer::asked(query, &answers.zone)?;
    let copy = answers.secondaries.copy_for(asker)?;
    answers.counters.dns_transfers.increment();
    Some(transfer::messages(&asked, &copy, &answers.zone))
}

/// Writes a message with its length before it.
async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let Ok(length) = u16::try_from(message.len()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
    };
    // Written at once: some askers take the first segment for the whole answer.
    let framed = [&length.to_be_bytes(), message].concat();
    timeout(SILENCE_MAX, stream.write_all(&framed)).await?
}

/// Returns the reply to send, and its cost in steps.
fn answer(
    query: &[u8],
    (asker, arrival): (IpAddr, IpAddr),
    answers: &Answers,
) -> (Option<Vec<u8>>, usize) {
    let work = Cell::new(0);
    let may_visit = |endpoints| {
        work.set(endpoints);
        true
    };
    let reply = answers.answer(query, Transport::Tcp, asker, Some(arrival), &may_visit);
    let reply = answers.count(reply);
    let bytes = reply.as_ref().map_or(0, Vec::len);
    (reply, STEPS_MIN + bytes + work.get())
}

/// Counts an answer. Returns how long the asker's next question must wait.
fn charge(work_limit: &Mutex<WorkLimit>, asker: IpAddr, steps: usize) -> Duration {
    let now = clock::now();
    let mut work_limit = work_limit.lock().unwrap_or_else(PoisonError::into_inner);
    work_limit.charge(asker, steps, now);
    work_limit.wait(asker, now)
}

async fn read(stream: &mut TcpStream, query: &mut Vec<u8>) -> io::Result<()> {
    let length = usize::from(stream.read_u16().await?);
    if length > QUERY_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the question is too long"));
    }
    query.resize(length, 0);
    stream.read_exact(query).await?;
    Ok(())
}
