//! A real Chromium, driven by WebDriver.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use http::Method;
use serde_json::{Value, json};
use url::Url;
use xtask::program::Background;

/// How long a page may take to become what a test waits for, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Whether pages may run their script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// As browsers come.
    Runs,
    /// Switched off by the person.
    Off,
}

/// How a browser shows itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) dark: bool,
    pub(crate) script: Script,
}

/// A screen on a desk.
pub(crate) const DESK: Look = Look {
    width: 1280,
    height: 900,
    dark: false,
    script: Script::Runs,
};

/// A telephone.
pub(crate) const PHONE: Look = Look {
    width: 360,
    height: 740,
    ..DESK
};

/// A browser with a profile of its own. It ends with this value.
pub(crate) struct Browser {
    pub(crate) page: Client,
    base: String,
    // Ended after the session, which is why it is a field.
    _driver: Background,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Opens one for the dashboard at `base`, such as `http://127.0.0.1:8081`.
    pub(crate) async fn open(base: &str, look: Look) -> Self {
        let port = free_port();
        let driver = Background::start(
            Command::new("chromedriver")
                .arg(format!("--port={port}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )
        .expect("chromedriver cannot be run: install chromium and chromium-driver");
        let profile = tempfile::tempdir().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let page = connect(&url, capabilities(look, profile.path())).await;
        let browser = Browser {
            page,
            base: base.to_owned(),
            _driver: driver,
            _profile: profile,
        };
        browser.look(look).await;
        browser
    }

    /// Shows itself in another way from now on.
    pub(crate) async fn look(&self, look: Look) {
        let size = json!({ "width": look.width, "height": look.height, "deviceScaleFactor": 1,
            "mobile": look.width < 700 });
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .await;
        let scheme = if look.dark { "dark" } else { "light" };
        let features = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ] });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// The same browser, for the dashboard's next address.
    pub(crate) fn moved_to(self, base: &str) -> Self {
        Browser {
            base: base.to_owned(),
            ..self
        }
    }

    /// Goes to a page of the dashboard.
    pub(crate) async fn go(&self, path: &str) {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.base)
        };
        self.page.goto(&url).await.unwrap();
    }

    /// The path and query of where it is.
    pub(crate) async fn path(&self) -> String {
        let url = self.page.current_url().await.unwrap();
        match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        }
    }

    /// Waits for the one element that `css` means, and clicks it.
    pub(crate) async fn click(&self, css: &str) {
        // A piece of the page may be drawn anew between the look and the click.
        let started = Instant::now();
        loop {
            let clicked = self.find(css).await.click().await;
            match clicked {
                Ok(()) => return,
                Err(error) if started.elapsed() > PATIENCE => {
                    panic!("clicking {css} on {}: {error}", self.path().await)
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Clicks the button or link that reads `text`.
    pub(crate) async fn press(&self, text: &str) {
        let path = format!(
            "//button[normalize-space()='{text}'] | //a[normalize-space()='{text}'] | //summary[normalize-space()='{text}']"
        );
        let found = self.page.wait().at_most(PATIENCE);
        match found.for_element(Locator::XPath(&path)).await {
            Ok(element) => element
                .click()
                .await
                .unwrap_or_else(|e| panic!("pressing {text}: {e}")),
            Err(error) => panic!(
                "there is nothing to press that reads `{text}` on {}: {error}\n{}",
                self.path().await,
                self.text("body").await
            ),
        }
    }

    /// Types into a field, in the place of what is there.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Chooses from a list by its value.
    pub(crate) async fn choose(&self, css: &str, value: &str) {
        self.find(css).await.select_by_value(value).await.unwrap();
    }

    /// The element, once it is there.
    pub(crate) async fn find(&self, css: &str) -> fantoccini::elements::Element {
        let found = self.page.wait().at_most(PATIENCE);
        match found.for_element(Locator::Css(css)).await {
            Ok(element) => element,
            Err(error) => panic!(
                "there is no {css} on {}: {error}\n{}",
                self.path().await,
                self.text("body").await
            ),
        }
    }

    /// What a person reads in an element.
    pub(crate) async fn text(&self, css: &str) -> String {
        match self.page.find(Locator::Css(css)).await {
            Ok(element) => element.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// How many there are.
    pub(crate) async fn count(&self, css: &str) -> usize {
        self.page.find_all(Locator::Css(css)).await.unwrap().len()
    }

    /// Waits until what a person reads in an element holds `wanted`.
    pub(crate) async fn until(&self, css: &str, wanted: &str) {
        let started = Instant::now();
        loop {
            let found = self.text(css).await;
            if found.contains(wanted) {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{css} on {} never read `{wanted}`; it reads `{found}`",
                self.path().await
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until there are so many.
    pub(crate) async fn until_there_are(&self, wanted: usize, css: &str) {
        let started = Instant::now();
        loop {
            let found = self.count(css).await;
            if found == wanted {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{found} {css} are on {}, not {wanted}",
                self.path().await
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs a script on the page and gives what it returns.
    pub(crate) async fn eval(&self, script: &str) -> Value {
        self.page.execute(script, vec![]).await.unwrap()
    }

    /// A picture of what the window shows, in `target/screenshots/NAME.png`.
    pub(crate) async fn picture(&self, name: &str) {
        let shot = self
            .devtools("Page.captureScreenshot", json!({ "format": "png" }))
            .await;
        let bytes = STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        let dir = xtask::target_dir().join("screenshots");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("{name}.png")), bytes).unwrap();
    }

    /// The height of the page, in CSS pixels.
    pub(crate) async fn height(&self) -> u32 {
        self.measure("Height").await
    }

    /// The width of what the page has to show: more than that of the window where it must be scrolled.
    pub(crate) async fn width(&self) -> u32 {
        self.measure("Width").await
    }

    async fn measure(&self, side: &str) -> u32 {
        let script = format!("return document.documentElement.scroll{side}");
        let pixels = self.eval(&script).await.as_u64().unwrap();
        u32::try_from(pixels).unwrap()
    }

    /// Presses a key wherever the focus is.
    pub(crate) async fn key(&self, key: fantoccini::key::Key) {
        let element = self.page.active_element().await.unwrap();
        element
            .send_keys(&String::from(char::from(key)))
            .await
            .unwrap();
    }

    /// A call of Chromium's own protocol.
    pub(crate) async fn devtools(&self, cmd: &str, params: Value) -> Value {
        let call = DevTools(json!({ "cmd": cmd, "params": params }));
        self.page.issue_cmd(call).await.unwrap()
    }

    /// Ends it in good order.
    pub(crate) async fn close(self) {
        self.page.clone().close().await.unwrap();
    }
}

async fn connect(url: &str, capabilities: Capabilities) -> Client {
    let started = Instant::now();
    loop {
        let connector = hyper_util::client::legacy::connect::HttpConnector::new();
        let mut builder = ClientBuilder::new(connector);
        builder.capabilities(capabilities.clone());
        match builder.connect(url).await {
            Ok(page) => return page,
            Err(error) if started.elapsed() > PATIENCE => panic!("no browser: {error}"),
            // chromedriver opens its port a moment after it starts.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn capabilities(look: Look, profile: &std::path::Path) -> Capabilities {
    let mut arguments = vec![
        "--headless=new".to_owned(),
        // Tests run as root, as the server's other tests do; the pages are our own.
        "--no-sandbox".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--hide-scrollbars".to_owned(),
        "--force-color-profile=srgb".to_owned(),
        // Nothing is asked of anybody but the dashboard.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost".to_owned(),
    ];
    arguments.push(format!("--user-data-dir={}", profile.display()));
    arguments.push(format!("--window-size={},{}", look.width, look.height));
    let mut options = json!({ "args": arguments });
    if look.script == Script::Off {
        options["prefs"] = json!({ "profile.managed_default_content_settings.javascript": 2 });
    }
    let mut capabilities = Capabilities::new();
    capabilities.insert("goog:chromeOptions".into(), options);
    capabilities
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// `POST /session/{id}/goog/cdp/execute`
#[derive(Debug)]
struct DevTools(Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!(
            "session/{}/goog/cdp/execute",
            session.unwrap_or_default()
        ))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.0.to_string()))
    }
}
