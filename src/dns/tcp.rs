//! Questions that come by TCP: after a truncated answer, or by choice.
//!
//! In: a listener. Out: answers, in the order of their questions (RFC 7766).
//! It never holds more than a bounded number of connections, nor any that is
//! silent for long.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Answers, Carrier, Infallible, PAUSE, answer::QUERY_MAX, io};

/// Connections at a time. When one more comes, the oldest goes: so whoever
/// opens many and says nothing costs the others nothing.
const CONNECTIONS_MAX: usize = 256;
/// How long a question may be on its way, or an answer, or nothing at all. RFC
/// 7766 (6.2.3) wants seconds; nobody asks often enough to gain from more.
const SILENCE_MAX: Duration = Duration::from_secs(10);

pub(super) async fn answer_all(listener: &TcpListener, answers: &Answers) -> Infallible {
    let mut open = FuturesUnordered::new();
    let mut handles: BTreeMap<u64, AbortHandle> = BTreeMap::new();
    let mut number = 0_u64;
    loop {
        tokio::select! {
            stream = accept(listener) => {
                if handles.len() >= CONNECTIONS_MAX
                    && let Some((_, oldest)) = handles.pop_first()
                {
                    oldest.abort();
                }
                let (talk, handle) = abortable(talk(stream, answers));
                let this = number;
                handles.insert(this, handle);
                open.push(async move {
                    if let Ok(Err(error)) = talk.await {
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

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::debug!(%error, "no connection can be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One connection, to its end.
async fn talk(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    let arrival = stream.local_addr()?.ip();
    stream.set_nodelay(true)?;
    let mut query = Vec::new();
    loop {
        timeout(SILENCE_MAX, read(&mut stream, &mut query)).await??;
        let Some(reply) = answers.reply(&query, Carrier::Tcp, Some(arrival)) else {
            return Ok(());
        };
        let Ok(length) = u16::try_from(reply.len()) else { return Ok(()) };
        // In one piece: some askers take the first segment for all there is.
        let framed = [&length.to_be_bytes(), reply.as_slice()].concat();
        timeout(SILENCE_MAX, stream.write_all(&framed)).await??;
    }
}

async fn read(stream: &mut TcpStream, query: &mut Vec<u8>) -> io::Result<()> {
    let length = usize::from(stream.read_u16().await?);
    if length > QUERY_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no question is that long"));
    }
    query.resize(length, 0);
    stream.read_exact(query).await?;
    Ok(())
}
