//! Serves the sample services: accepts, reads bodies up to a cap, waits as long as a service asks to, and ends cleanly.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::demo::services::io::Socket;
use crate::demo::services::reply::{Ask, Reply, Service};

/// The largest body that is read, in bytes.
pub(super) const MAX_BODY: usize = 64 * 1024;

/// How many connections one service holds at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 512;

/// How long a client may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(10);

/// How long running answers may take once the services were told to stop.
const LAST_CALL: Duration = Duration::from_millis(500);

/// Serves until `stop` turns true, then ends within [`LAST_CALL`].
pub(super) async fn serve(services: Vec<(TcpListener, Arc<dyn Service>)>, stop: watch::Receiver<bool>) {
    let mut running = JoinSet::new();
    for (listener, service) in services {
        running.spawn(accept(listener, service, stop.clone()));
    }
    while running.join_next().await.is_some() {}
}

async fn accept(listener: TcpListener, service: Arc<dyn Service>, stop: watch::Receiver<bool>) {
    let mut end = stop.clone();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        tokio::select! {
            () = told(&mut end) => break,
            Some(_) = connections.join_next() => {}
            next = next => match next {
                Some((place, Ok((stream, _)))) => {
                    let (service, stop) = (Arc::clone(&service), stop.clone());
                    connections.spawn(async move {
                        connection(stream, service, stop).await;
                        drop(place);
                    });
                }
                // Out of descriptors, as a rule: they come back when connections end.
                Some((_, Err(_))) => sleep(Duration::from_millis(100)).await,
                None => break,
            }
        }
    }
    // New clients are refused from here on; whoever has a connection gets the last call.
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(LAST_CALL, all).await;
}

/// Waits until the services are told to stop; whoever held the other end being gone counts as that.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(stream: TcpStream, service: Arc<dyn Service>, mut stop: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let answering = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(answer(service.as_ref(), request).await) }
    });
    let connection = http1::Builder::new().serve_connection(Socket(stream), answering);
    tokio::pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            // A client that breaks off or speaks nonsense is no concern of a sample.
            _ = connection.as_mut() => return,
            () = told(&mut stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer(service: &dyn Service, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let reply = match timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => service.reply(&Ask { head: &head, body: &body.to_bytes() }),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Reply::refusal(StatusCode::PAYLOAD_TOO_LARGE, "this service reads 64 KiB at the most")
        }
        Ok(Err(_)) => Reply::refusal(StatusCode::BAD_REQUEST, "the body broke off"),
        Err(_) => Reply::refusal(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
    };
    if !reply.after.is_zero() {
        sleep(reply.after).await;
    }
    response(service.name(), reply)
}

fn response(name: &str, reply: Reply) -> Response<Full<Bytes>> {
    let mut body = reply.body.to_string();
    body.push('\n');
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Real services tell more of themselves than they should; the document shows how the gate keeps that in.
    let powered_by = HeaderValue::from_str(&format!("demo-{name}/1.4"));
    let location = reply.location.map(|place| HeaderValue::from_str(&place));
    let allow = reply.allow.map(HeaderValue::from_static);
    let powered = HeaderName::from_static("x-powered-by");
    let extra = [(powered, powered_by.ok()), (LOCATION, location.and_then(Result::ok)), (ALLOW, allow)];
    headers.extend(extra.into_iter().filter_map(|(name, value)| Some((name, value?))));
    response
}
