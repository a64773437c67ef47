//! The accept loop: connections within bounds of number and time. Knows no routes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};

use crate::fault;
use crate::limits::{
    BACKLOG_MAX, CONNECTIONS_MAX, HEADER_BYTES_MAX, HEADERS_MAX, HEADERS_MS_MAX, SEND_BUFFER_BYTES,
};

/// Listens on that address. What a client does not read waits in its job's log, not in the system: so
/// the system's own buffer is small, and one that reads nothing is noticed soon.
///
/// # Errors
/// If the address can't be bound.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?; // each connection inherits it
    socket.bind(address)?;
    socket.listen(BACKLOG_MAX)
}

/// Serves connections until the task is dropped. A client that reads nothing for `stall` of what waits
/// for it is let go.
pub async fn serve(listener: TcpListener, router: Router, stall: Duration) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        fault::place("accept");
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, router, stall).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, mostly: let others end.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, stall: Duration) {
    if let Err(error) = set_up(&stream, stall) {
        tracing::debug!(%error, "a connection could not be set up"); // its peer is gone, most likely
    }
    serve_one(stream, router, stall).await;
}

/// Serves one connection until it ends, or is not read from for `stall`.
pub(crate) async fn serve_one<S>(stream: S, router: Router, stall: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Guarded { stream, stall, stalled: None };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEADERS_MS_MAX))
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Sends at once, and notices a peer that vanished without a word: one that answers nothing of what was
/// sent for `stall`, or no probe after as long a silence. Only the system can see that.
fn set_up(stream: &TcpStream, stall: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?; // a token is worth a packet
    let socket = SockRef::from(stream);
    let pause = (stall / 3).max(Duration::from_secs(1)); // the system counts in seconds
    let probes = TcpKeepalive::new().with_time(stall).with_interval(pause).with_retries(3);
    socket.set_tcp_keepalive(&probes)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(stall))?;
    Ok(())
}

/// A connection whose reader has to make progress while something is to be read.
struct Guarded<S> {
    stream: S,
    /// Time without progress after which it is let go.
    stall: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S> Guarded<S> {
    /// Starts the clock when a write waits, stops it when one goes through.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let until = Instant::now() + self.stall;
        let clock = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        std::task::ready!(clock.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the reader does not read")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_reader_is_let_go_when_it_stops_reading_and_not_when_it_is_slow() {
        let (stream, mut reader) = duplex(16);
        let mut stream = Guarded { stream, stall: Duration::from_millis(1_500), stalled: None };
        let reading = tokio::spawn(async move {
            let mut piece = [0; 8];
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(200)).await;
                reader.read_exact(&mut piece).await.expect("there is more");
            }
            reader
        });
        // Takes longer than the limit in all, but something is read again and again.
        stream.write_all(&[1; 80]).await.expect("it is read, slowly");
        let _reader = reading.await.expect("it reads");
        let error = stream.write_all(&[1; 80]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
