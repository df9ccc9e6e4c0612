//! A real browser: Chromium without a window, driven by the DevTools protocol over two pipes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command;
use crate::process::Process;
use crate::wait;

/// How long something may take in a browser on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser that nobody sees. It ends when it is dropped.
#[derive(Debug)]
pub struct Browser {
    _process: Process,
    commands: ChildStdin,
    events: Receiver<Value>,
    last: u64,
    _folder: TempDir,
}

/// A tab of one.
#[derive(Debug, Clone)]
pub struct Tab(String);

impl Browser {
    /// Starts one where Chromium is installed; else says that it is not.
    ///
    /// # Panics
    /// If it does not start.
    #[expect(clippy::print_stderr, reason = "the run says what is not tested")]
    pub fn start() -> Option<Self> {
        let Some(program) = command::find("chromium") else {
            eprintln!("Chromium is not there, so logins are NOT tested by a browser: ./test installs it");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // The pipes of the protocol are its third and fourth file: those of a child are its first two.
        let mut child = Command::new("sh")
            .args(["-c", "exec 3<&0 4>&1 </dev/null >/dev/null; exec \"$@\"", "sh"])
            .arg(program)
            .args(["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-dev-shm-usage", "--disable-background-networking", "--ignore-certificate-errors"])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium starts");
        let commands = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, events) = channel();
        std::thread::spawn(move || {
            for message in stdout.split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        Some(Self { _process: Process::new(child), commands, events, last: 0, _folder: folder })
    }

    /// A new tab. All tabs have the same cookies.
    ///
    /// # Panics
    /// If there is none.
    pub fn tab(&mut self) -> Tab {
        let target = self.call(None, "Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.call(None, "Target.attachToTarget", &attach);
        Tab(session["sessionId"].as_str().expect("a session").to_owned())
    }

    /// Goes to an address, and waits until a page is there of which `is_it` says that it is the one.
    ///
    /// # Panics
    /// If none comes.
    pub fn go(&mut self, tab: &Tab, url: &str, is_it: impl Fn(&str) -> bool) -> String {
        self.call(Some(tab), "Page.navigate", &json!({ "url": url }));
        self.arrives(tab, is_it)
    }

    /// Waits until a page is there whose address is the one, and gives its text.
    ///
    /// # Panics
    /// If none comes.
    pub fn arrives(&mut self, tab: &Tab, is_it: impl Fn(&str) -> bool) -> String {
        let start = wait::now();
        loop {
            let page =
                "JSON.stringify([document.readyState, location.href, document.body ? document.body.innerText : ''])";
            let page = self.evaluate(tab, page).and_then(|page| serde_json::from_str(page.as_str()?).ok());
            let page: Value = page.unwrap_or_default();
            let url = page[1].as_str().unwrap_or_default();
            if page[0] == "complete" && is_it(url) {
                return page[2].as_str().unwrap_or_default().to_owned();
            }
            assert!(start.elapsed() < PATIENCE, "the browser is at {page}");
            wait::pause(Duration::from_millis(10));
        }
    }

    /// What an expression comes to in a page; a promise is waited for.
    ///
    /// # Panics
    /// If the browser is gone.
    pub fn run(&mut self, tab: &Tab, expression: &str) -> Value {
        self.evaluate(tab, expression).unwrap_or_else(|| panic!("`{expression}` comes to nothing"))
    }

    /// Fills in the form of the identity provider under this name.
    pub fn give_name(&mut self, tab: &Tab, name: &str) {
        self.arrives(tab, |url| url.contains("/interaction/"));
        let expression = format!(
            "document.querySelector('[name=login]').value = '{name}'; document.querySelector('[name=password]').value = 'x'; \
             document.querySelector('form').submit(); true"
        );
        self.run(tab, &expression);
    }

    /// All cookies, of all hosts.
    ///
    /// # Panics
    /// If the browser is gone.
    pub fn cookies(&mut self) -> Vec<Value> {
        let cookies = self.call(None, "Storage.getCookies", &json!({}));
        cookies["cookies"].as_array().cloned().unwrap_or_default()
    }

    fn evaluate(&mut self, tab: &Tab, expression: &str) -> Option<Value> {
        let arguments = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        // A page that goes away meanwhile has no answer.
        let answer = self.try_call(Some(tab), "Runtime.evaluate", &arguments).ok()?;
        answer["result"].get("value").cloned()
    }

    fn call(&mut self, tab: Option<&Tab>, method: &str, arguments: &Value) -> Value {
        self.try_call(tab, method, arguments).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn try_call(&mut self, tab: Option<&Tab>, method: &str, arguments: &Value) -> Result<Value, Value> {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": arguments });
        if let Some(Tab(session)) = tab {
            command["sessionId"] = session.as_str().into();
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).expect("the browser listens");
        let start = wait::now();
        loop {
            match self.events.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
                Ok(message) if message["id"] == self.last => {
                    return message.get("result").cloned().ok_or_else(|| message["error"].clone());
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("{method}: the browser does not answer"),
                Err(RecvTimeoutError::Disconnected) => panic!("{method}: the browser is gone"),
            }
        }
    }
}
