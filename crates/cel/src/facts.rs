//! What an expression is evaluated against: the request and the caller. All of it is bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use cel::Value;
use cel::objects::{Key, Map};
use http::HeaderMap;
use pylon_core::caller::Caller;

/// The members of `request`.
pub(crate) const REQUEST: &[&str] =
    &["method", "path", "sent_path", "host", "scheme", "headers", "query", "client", "time", "id"];
/// The members of `caller`.
pub(crate) const CALLER: &[&str] = &["subject", "consumer", "groups", "scopes", "claims", "plan", "by", "metadata"];

/// The longest text, in bytes.
const LONGEST: usize = 8 * 1024;
/// The most texts, numbers, lists and maps in all.
const MOST: usize = 1024;

/// What is known of a request.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The method.
    pub method: &'a str,
    /// The path as the client asked, in its normal form, without the query.
    pub path: &'a str,
    /// Path and query as they are sent.
    pub sent_path: &'a str,
    /// The query as it came.
    pub query: &'a str,
    /// The host that was asked for.
    pub host: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Several lines of one name become one.
    pub headers: &'a HeaderMap,
    /// The client's address.
    pub client: IpAddr,
    /// Seconds since 1970.
    pub time: u64,
    /// The correlation id.
    pub id: &'a str,
    /// Who is asking, where that is known.
    pub caller: Option<&'a Caller>,
    /// Turns `%2F` and the like of a query into what it stands for.
    pub decode: fn(&str) -> String,
}

/// Which members of `request` an expression looks at: no other is made ready for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Looks(u16);

impl Looks {
    /// All of them.
    pub(crate) const ALL: Self = Self(u16::MAX);

    /// The one of this name, or none.
    pub(crate) fn at(name: &str) -> Self {
        Self(REQUEST.iter().position(|known| *known == name).map_or(0, |index| 1 << index))
    }

    pub(crate) fn add(&mut self, others: Self) {
        self.0 |= others.0;
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn has(self, name: &str) -> bool {
        self.0 & Self::at(name).0 != 0
    }
}

impl Facts<'_> {
    /// The variables with what is looked at, or what of it is over a bound.
    pub(crate) fn variables(&self, looks: Looks, at_caller: bool) -> Result<[(&'static str, Value); 2], String> {
        let mut room = Room { left: MOST };
        let mut request = HashMap::new();
        for name in REQUEST.iter().filter(|name| looks.has(name)) {
            request.insert(key(name), self.member(name, &mut room)?);
        }
        let caller = self.caller.filter(|_| at_caller).map_or(Ok(Value::Null), |caller| room.caller(caller))?;
        Ok([("request", Value::Map(Map { map: Arc::new(request) })), ("caller", caller)])
    }

    fn member(&self, name: &str, room: &mut Room) -> Result<Value, String> {
        match name {
            "method" => room.text(self.method),
            "path" => room.text(self.path),
            "sent_path" => room.text(self.sent_path),
            "host" => room.text(self.host),
            "scheme" => room.text(self.scheme),
            "headers" => self.headers(room),
            "query" => self.query(room),
            "client" => room.text(&self.client.to_canonical().to_string()),
            "time" => Ok(Value::Int(i64::try_from(self.time).unwrap_or(i64::MAX))),
            "id" => room.text(self.id),
            _ => Err(format!("there is no `{name}`")),
        }
    }

    fn headers(&self, room: &mut Room) -> Result<Value, String> {
        let mut all = HashMap::new();
        for name in self.headers.keys() {
            let lines: Vec<&[u8]> = self.headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
            all.insert(key(name.as_str()), room.text(&String::from_utf8_lossy(&lines.join(&b", "[..])))?);
        }
        Ok(Value::Map(Map { map: Arc::new(all) }))
    }

    /// Each name has a list: what a service makes of one that comes twice is its own affair.
    fn query(&self, room: &mut Room) -> Result<Value, String> {
        let mut lists: HashMap<String, Vec<Value>> = HashMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = room.text(&(self.decode)(value))?;
            lists.entry((self.decode)(name)).or_default().push(value);
        }
        let all = lists.into_iter().map(|(name, list)| (key(&name), Value::List(Arc::new(list)))).collect();
        Ok(Value::Map(Map { map: Arc::new(all) }))
    }
}

/// How much may still be told.
struct Room {
    left: usize,
}

impl Room {
    fn take(&mut self) -> Result<(), String> {
        self.left = self.left.checked_sub(1).ok_or_else(|| format!("there are more than {MOST} values"))?;
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<Value, String> {
        self.take()?;
        if text.len() > LONGEST {
            return Err(format!("a text is longer than {LONGEST} bytes"));
        }
        Ok(Value::String(Arc::new(text.to_owned())))
    }

    fn texts(&mut self, texts: &[Box<str>]) -> Result<Value, String> {
        texts.iter().map(|text| self.text(text)).collect::<Result<_, _>>().map(|list| Value::List(Arc::new(list)))
    }

    fn maybe(&mut self, text: Option<&str>) -> Result<Value, String> {
        text.map_or(Ok(Value::Null), |text| self.text(text))
    }

    fn caller(&mut self, caller: &Caller) -> Result<Value, String> {
        let consumer = caller.consumer.as_deref();
        let mut metadata = HashMap::new();
        for (name, value) in consumer.iter().flat_map(|consumer| &consumer.metadata) {
            metadata.insert(key(name), self.text(value)?);
        }
        let mut claims = HashMap::new();
        for (name, value) in &caller.claims {
            claims.insert(key(name), self.json(value)?);
        }
        Ok(map([
            ("subject", self.text(&caller.subject)?),
            ("consumer", self.maybe(consumer.map(|consumer| consumer.name.as_str()))?),
            ("groups", self.texts(&caller.groups)?),
            ("scopes", self.texts(&caller.scopes)?),
            ("claims", Value::Map(Map { map: Arc::new(claims) })),
            ("plan", self.maybe(consumer.and_then(|consumer| consumer.plan.as_deref()))?),
            ("by", self.text(caller.by)?),
            ("metadata", Value::Map(Map { map: Arc::new(metadata) })),
        ]))
    }

    fn json(&mut self, value: &serde_json::Value) -> Result<Value, String> {
        self.take()?;
        Ok(match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Value::Int(number),
                (None, Some(number)) => Value::UInt(number),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => self.text(text)?,
            serde_json::Value::Array(items) => {
                let items: Result<_, _> = items.iter().map(|item| self.json(item)).collect();
                Value::List(Arc::new(items?))
            }
            serde_json::Value::Object(members) => {
                let mut all = HashMap::new();
                for (name, value) in members {
                    all.insert(key(name), self.json(value)?);
                }
                Value::Map(Map { map: Arc::new(all) })
            }
        })
    }
}

fn key(name: &str) -> Key {
    Key::String(Arc::new(name.to_owned()))
}

fn map<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Map(Map { map: Arc::new(members.into_iter().map(|(name, value)| (key(name), value)).collect()) })
}
