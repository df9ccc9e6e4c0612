//! What an expression is evaluated against: the request and the caller. All of it is bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use cel::Value;
use cel::objects::{Key, Map};
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
    /// Names in lower case, in any order; several lines of one name become one.
    pub headers: Vec<(&'a str, &'a [u8])>,
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

impl Facts<'_> {
    /// The variables, or what of them is over a bound.
    pub(crate) fn variables(&self) -> Result<[(&'static str, Value); 2], String> {
        let mut room = Room { left: MOST };
        let request = [
            ("method", room.text(self.method)?),
            ("path", room.text(self.path)?),
            ("sent_path", room.text(self.sent_path)?),
            ("host", room.text(self.host)?),
            ("scheme", room.text(self.scheme)?),
            ("headers", self.headers(&mut room)?),
            ("query", self.query(&mut room)?),
            ("client", room.text(&self.client.to_canonical().to_string())?),
            ("time", Value::Int(i64::try_from(self.time).unwrap_or(i64::MAX))),
            ("id", room.text(self.id)?),
        ];
        let caller = self.caller.map_or(Ok(Value::Null), |caller| room.caller(caller))?;
        Ok([("request", map(request)), ("caller", caller)])
    }

    fn headers(&self, room: &mut Room) -> Result<Value, String> {
        let mut lines: HashMap<&str, Vec<u8>> = HashMap::new();
        for (name, value) in &self.headers {
            let line = lines.entry(name).or_default();
            if !line.is_empty() {
                line.extend_from_slice(b", ");
            }
            line.extend_from_slice(value);
        }
        let mut all = HashMap::new();
        for (name, line) in lines {
            all.insert(key(name), room.text(&String::from_utf8_lossy(&line))?);
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
