//! A job's log as a response that streams: events in the form asked for, as they come, and a sign of
//! life in between. When the last reader leaves, the job is asked whether it goes on.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::App;
use crate::delivery::{Event, Reader, frame};
use crate::job::{OnDisconnect, Record};
use crate::narration::facts::CancelledBy;

/// How the events of a stream look on the wire.
pub trait Form: Send + Unpin + 'static {
    /// The bytes of event number `id`; none: this form does not show it.
    fn event(&mut self, id: usize, event: &Event) -> Option<Bytes>;

    /// The sign of life between events.
    fn ping(&self) -> &'static [u8];
}

/// Our own streams: every event, with id and name.
pub struct Frames;

impl Form for Frames {
    fn event(&mut self, id: usize, event: &Event) -> Option<Bytes> {
        Some(frame::frame(id, event))
    }

    fn ping(&self) -> &'static [u8] {
        frame::PING
    }
}

/// A reader of a job. When it is dropped and no other is left, it ends the job, if that is what its
/// request asked for.
pub struct Attended {
    job: Record,
    reader: Option<Reader>,
}

impl Attended {
    /// Reads the job's log after its first `after` events.
    pub fn new(job: Record, after: usize) -> Self {
        let reader = Some(job.log.reader(after));
        Attended { job, reader }
    }

    /// The next event with its number; none after the last.
    pub async fn next(&mut self) -> Option<(usize, std::sync::Arc<Event>)> {
        self.reader.as_mut()?.next().await
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.reader = None; // so that it does not count any more
        if self.job.on_disconnect == OnDisconnect::Cancel && self.job.log.unread() {
            self.job.cancel.cancel(CancelledBy::Disconnect); // after the job's end it changes nothing
        }
    }
}

/// The job's stream in that form, after its first `after` events.
pub fn respond(app: &App, job: Record, after: usize, form: impl Form) -> Response {
    let silence = app.keep_alive;
    let due = Instant::now() + silence;
    let next = next_event(Attended::new(job, after), due);
    let body = EventBody { next, form, silence, due, ended: false };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::new(body)).into_response()
}

/// What comes next on a stream.
enum Came {
    Event(usize, std::sync::Arc<Event>),
    Silence,
    End,
}

type Next = Pin<Box<dyn Future<Output = (Came, Attended)> + Send>>;

/// Waits for the next event, at most until a sign of life is due.
fn next_event(mut reader: Attended, due: Instant) -> Next {
    Box::pin(async move {
        let came = match tokio::time::timeout_at(due, reader.next()).await {
            Ok(Some((id, event))) => Came::Event(id, event),
            Ok(None) => Came::End,
            Err(_) => Came::Silence,
        };
        (came, reader)
    })
}

struct EventBody<F> {
    next: Next,
    form: F,
    /// Silence after which a sign of life is sent.
    silence: Duration,
    /// When the client needs a sign of life: events that this form does not show are none.
    due: Instant,
    ended: bool,
}

impl<F: Form> http_body::Body for EventBody<F> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        while !self.ended {
            let (came, reader) = std::task::ready!(self.next.as_mut().poll(context));
            let bytes = match came {
                Came::Event(id, event) => self.form.event(id, &event),
                Came::Silence => Some(Bytes::from_static(self.form.ping())),
                Came::End => {
                    self.ended = true;
                    break;
                }
            };
            if bytes.is_some() {
                self.due = Instant::now() + self.silence;
            }
            self.next = next_event(reader, self.due);
            if let Some(bytes) = bytes {
                return Poll::Ready(Some(Ok(http_body::Frame::data(bytes))));
            }
        }
        Poll::Ready(None)
    }
}
