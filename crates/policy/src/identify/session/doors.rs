//! The gateway's own places: where a login begins and comes back to, where a browser logs out, and where an issuer tells of logouts.

use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use pylon_core::connection::Scheme;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::{CALLER_UNKNOWN, ROUTE_METHOD, Reason, Rejection, SESSION_LOGIN, SESSION_REFUSED};
use pylon_core::spec::FieldPath;
use pylon_core::{Request, Response};
use pylon_observe::clock::unix_now;
use pylon_upstream::oauth::Form;

use super::cookies::Jar;
use super::form::Members;
use super::login::{LASTS, Login};
use super::pages;
use super::party::{Failed, Party, now};
use super::proof::text;
use super::return_to::safe;
use super::ticket::Ticket;
use crate::own::{Handler, Hosts, OwnRoute};
use crate::policy::{Step, Stop};

/// How long a browser waits for an issuer that has not told of itself yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked of the gateway at a place of its own.
#[derive(Debug, Clone, Copy)]
enum Door {
    Callback,
    Login,
    Logout,
    Backchannel,
}

/// One of the places.
#[derive(Debug)]
struct Place {
    door: Door,
    party: Arc<Party>,
}

/// All of them, with the party whose they are.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) party: Arc<Party>,
    all: Box<[Entrance]>,
}

/// How one of them is found.
#[derive(Debug)]
struct Entrance {
    name: &'static str,
    below: &'static str,
    methods: &'static [&'static str],
    handler: Arc<dyn Handler>,
}

impl Doors {
    pub(super) fn new(party: Party) -> Self {
        let party = Arc::new(party);
        let entrance = |name, below, methods, door| {
            let place = Place { door, party: Arc::clone(&party) };
            Entrance { name, below, methods, handler: Arc::new(place) as Arc<dyn Handler> }
        };
        let all = [
            entrance("session-callback", "/callback", &["GET"], Door::Callback),
            entrance("session-login", "/login", &["GET"], Door::Login),
            entrance("session-logout", "/logout", &["GET", "POST"], Door::Logout),
            entrance("session-backchannel", "/backchannel", &["POST"], Door::Backchannel),
        ]
        .into();
        Self { party, all }
    }

    /// The routes that lead to them.
    pub(super) fn routes(&self) -> impl Iterator<Item = OwnRoute> {
        self.all.iter().map(|Entrance { name, below, methods, handler }| OwnRoute {
            by: "session",
            name,
            path: format!("{}{below}", self.party.path),
            at: FieldPath::root().key("path"),
            methods,
            hosts: Hosts::OfHolders,
            handler: Arc::clone(handler),
        })
    }
}

impl Handler for Place {
    fn answer<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, Response> {
        let party = &self.party;
        if cx.method == Method::HEAD {
            return Step::Done(Err((&ROUTE_METHOD).into()));
        }
        Step::Wait(match self.door {
            Door::Callback => {
                let headers = req.headers();
                Box::pin(async move { Ok(party.callback(headers, cx).await) })
            }
            Door::Login => Box::pin(party.login(req.headers(), cx)),
            Door::Logout => {
                let headers = req.headers();
                Box::pin(async move { Ok(party.logout(headers, cx).await) })
            }
            Door::Backchannel => Box::pin(party.backchannel(req)),
        })
    }
}

/// Where a request came to: what a login that begins there has to know.
#[derive(Debug)]
pub(super) struct Arrival {
    scheme: Scheme,
    pub(super) origin: String,
    /// Its cookies.
    headers: HeaderMap,
}

impl Party {
    /// Where a request came to.
    pub(super) fn arrival(&self, headers: HeaderMap, cx: &Exchange) -> Arrival {
        let origin = match &self.origin {
            Some(origin) => origin.to_string(),
            None => {
                let host = headers.get(HOST).and_then(|host| host.to_str().ok());
                format!("{}://{}", cx.scheme.as_str(), host.unwrap_or_default())
            }
        };
        Arrival { scheme: cx.scheme, origin, headers }
    }

    /// Sends a browser to the issuer to log in, from where it comes back and goes on to `to`, with these cookies besides.
    pub(super) async fn begin(
        &self,
        to: &str,
        arrival: &Arrival,
        mut cookies: Vec<HeaderValue>,
    ) -> Result<Response, Rejection> {
        if self.shelf.as_ref().is_some_and(|shelf| !shelf.is_up()) {
            return Err(CALLER_UNKNOWN.privately("the store is away, so that nothing could come of a login"));
        }
        let told = self.told(now() + PATIENCE).await.map_err(Failed::rejection)?;
        let endpoint = text(&told, "authorization_endpoint").filter(|url| is_address(url));
        let endpoint = endpoint.ok_or_else(|| CALLER_UNKNOWN.privately("the issuer does not tell where to log in"))?;
        let unable = || CALLER_UNKNOWN.privately("a login cannot be sealed");
        let moment = unix_now().as_secs();
        let login = Login::begin(to, format!("{}{}/callback", arrival.origin, self.path), moment).ok_or_else(unable)?;
        let kept = self.with_desk(arrival.scheme, |desk| desk.keep(&login, &arrival.headers, moment));
        cookies.extend(kept.ok_or_else(unable)?);
        let form = login.form(&self.client.id, &self.scopes, &self.params);
        pages::see_other(&with_query(endpoint, &form), cookies).ok_or_else(unable)
    }

    /// A browser comes to log in.
    async fn login(&self, headers: &HeaderMap, cx: &mut Exchange) -> Result<Response, Stop> {
        let members = Members::read(cx.path.query().unwrap_or_default()).unwrap_or_default();
        let to = match members.get("return_to") {
            None => "/",
            Some(to) => match safe(to) {
                Some(to) => to,
                None => {
                    let no = SESSION_LOGIN.because("The address to return to is not a path of this site.");
                    return Ok(pages::refusal(&no, cx, &self.again("/")));
                }
            },
        };
        let arrival = self.arrival(headers.clone(), cx);
        Ok(self.begin(to, &arrival, Vec::new()).await?)
    }

    /// A browser comes back from the issuer (OpenID Connect Core 1.0 §3.1.2.5).
    async fn callback(self: &Arc<Self>, headers: &HeaderMap, cx: &mut Exchange) -> Response {
        let members = Members::read(cx.path.query().unwrap_or_default());
        // What stands there is for nobody else, the log included.
        if let Ok(path) = PathAndQuery::try_from(cx.path.path()) {
            cx.path = path;
        }
        let found = members.as_ref().and_then(|members| {
            let state = members.get("state")?;
            let login = self.with_desk(cx.scheme, |desk| desk.find(state, headers, unix_now().as_secs()))?;
            // A browser, or who has its cookies, may come back twice.
            let first = self.memory.first(&format!("l{state}"), login.at.saturating_add(LASTS));
            first.then_some(login)
        });
        let (Some(members), Some(login)) = (members, found) else {
            let no = SESSION_LOGIN
                .because("It was not begun in this browser, it is finished already, or it took more than ten minutes.");
            return pages::refusal(&no, cx, &self.again("/"));
        };
        let jar = self.names.of(cx.scheme);
        // Whatever comes of it, this login is over.
        let gone = jar.login_name(&login.state).and_then(|name| jar.forget_login(&name));
        let mut cookies: Vec<HeaderValue> = gone.into_iter().collect();
        let session = self.session(&members, login.clone()).await;
        let written = session.and_then(|ticket| {
            let too_long = "the session is longer than cookies can be: ask for fewer scopes or claims";
            self.written(&ticket, jar, headers).ok_or_else(|| SESSION_LOGIN.privately(too_long))
        });
        match written {
            Ok(session) => {
                cookies.extend(session);
                pages::see_other(safe(&login.to).unwrap_or("/"), cookies).unwrap_or_else(pages::logged_out)
            }
            Err(no) => {
                let mut page = pages::refusal(&no, cx, &self.again(&login.to));
                pages::set(&mut page, cookies);
                page
            }
        }
    }

    /// The session that comes of what an issuer brings back.
    async fn session(self: &Arc<Self>, members: &Members, login: Login) -> Result<Ticket, Rejection> {
        let told = self.told(now() + PATIENCE).await.map_err(Failed::rejection)?;
        let issuer = &*self.issuer.rules.issuer;
        let names_itself = told.get("authorization_response_iss_parameter_supported").is_some_and(|it| *it == true);
        // RFC 9207 §2.4: a code of another issuer must not be taken to this one.
        match members.get("iss") {
            Some(iss) if iss != issuer => return Err(SESSION_LOGIN.privately("another issuer answers (`iss`)")),
            None if names_itself => return Err(SESSION_LOGIN.privately("the issuer does not name itself (`iss`)")),
            _ => {}
        }
        if let Some(word) = members.get("error") {
            let shown: String =
                word.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_').take(40).collect();
            return Err(SESSION_REFUSED.because(format!("The identity provider says `{shown}`.")));
        }
        let code = members.get("code").ok_or_else(|| SESSION_LOGIN.privately("there is no code"))?.to_owned();
        let party = Arc::clone(self);
        let begun = async move {
            let ticket = party.exchange(&login, &code).await?;
            party.keep(&ticket).await?;
            Ok(ticket)
        };
        self.off(begun).await.map_err(|failed| match failed {
            Failed::Refused(why) => SESSION_LOGIN.privately(why),
            Failed::Unknown(_) => failed.rejection(),
        })
    }

    /// The cookies of a session, as it is used now: all of it, or its id where the store of all gateways keeps it.
    pub(super) fn written(&self, ticket: &Ticket, jar: Jar<'_>, headers: &HeaderMap) -> Option<Vec<HeaderValue>> {
        let moment = unix_now().as_secs();
        let envelope = if self.shelf.as_ref().is_some_and(|shelf| shelf.holds) {
            self.sealed_id(ticket, jar)?
        } else {
            let content = serde_json::to_vec(&Ticket { seen: moment, ..ticket.clone() }).ok()?;
            self.ring.seal(&self.bound("session", jar.name()), &content)?
        };
        let left = ticket.begun.saturating_add(self.times.lifetime).saturating_sub(moment).min(self.times.idle);
        jar.write(&envelope, left, headers)
    }

    /// The session in an envelope, and whether the key that seals now sealed it.
    pub(super) fn opened(&self, envelope: &[u8], jar: Jar<'_>) -> Option<(Ticket, bool)> {
        let opened = self.ring.open(&self.bound("session", jar.name()), envelope)?;
        Some((serde_json::from_slice(&opened.content).ok()?, opened.current))
    }

    /// Where a login begins anew that goes on to `to`.
    pub(super) fn again(&self, to: &str) -> String {
        let form = Form::default().with("return_to", safe(to).unwrap_or("/"));
        format!("{}/login?{}", self.path, form.text())
    }
}

impl Failed {
    /// What a client is told where nobody knows.
    pub(super) fn rejection(self) -> Rejection {
        let reason: &'static Reason = &CALLER_UNKNOWN;
        match self {
            Self::Refused(why) | Self::Unknown(why) => reason.privately(why),
        }
    }
}

/// Whether a browser can be sent there.
pub(super) fn is_address(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}

/// An address with a query more.
pub(super) fn with_query(endpoint: &str, form: &Form) -> String {
    let between = if endpoint.contains('?') { '&' } else { '?' };
    format!("{endpoint}{between}{}", form.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_may_have_a_query_of_its_own() {
        let form = || Form::default().with("a", "b");
        assert_eq!(with_query("https://id.test/auth", &form()), "https://id.test/auth?a=b");
        assert_eq!(with_query("https://id.test/auth?p=1", &form()), "https://id.test/auth?p=1&a=b");
    }
}
