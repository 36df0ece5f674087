//! The cookies of a login, and of a browser that somebody has logged in with (RFC 6265).

use axum::http::{HeaderMap, HeaderValue, header};

/// Over TLS the name promises what the browser then keeps: sent back only encrypted, to this host, and
/// set by nobody else (draft-ietf-httpbis-rfc6265bis §4.1.3.2).
const OVER_TLS: &str = "__Host-";

/// A cookie of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cookie {
    /// It lets somebody in, and goes when the browser does.
    Login,
    /// It tells that somebody was in with this browser, for half a year.
    Device,
}

/// What the cookies of a request hold; a browser may send several of one name.
pub(super) fn sent(cookie: Cookie, headers: &HeaderMap, tls: bool) -> impl Iterator<Item = &str> {
    let wanted = cookie.name(tls);
    let lines = headers.get_all(header::COOKIE).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(move |(name, _)| {
            let (prefix, plain) = wanted;
            name.strip_prefix(prefix) == Some(plain)
        })
        .map(|(_, value)| value)
}

/// The header that gives a browser a cookie.
pub(super) fn given(cookie: Cookie, value: &str, tls: bool) -> Option<HeaderValue> {
    let rest = match cookie {
        Cookie::Login => "",
        Cookie::Device => "; Max-Age=15552000",
    };
    set(cookie, value, tls, rest)
}

/// The header that takes the cookie of a login back.
pub(super) fn taken(tls: bool) -> Option<HeaderValue> {
    set(Cookie::Login, "", tls, "; Max-Age=0")
}

fn set(cookie: Cookie, value: &str, tls: bool, rest: &str) -> Option<HeaderValue> {
    let secure = if tls { "; Secure" } else { "" };
    let (prefix, name) = cookie.name(tls);
    let text = format!("{prefix}{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{rest}");
    HeaderValue::try_from(text).ok()
}

impl Cookie {
    /// The name, in two parts.
    fn name(self, tls: bool) -> (&'static str, &'static str) {
        let prefix = if tls { OVER_TLS } else { "" };
        match self {
            Cookie::Login => (prefix, "netroot"),
            Cookie::Device => (prefix, "netroot-device"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_comes_back_as_it_was_given() {
        let mut headers = HeaderMap::new();
        let line = HeaderValue::from_static("a=b; netroot=one;__Host-netroot=two; netroot=three=3");
        headers.insert(header::COOKIE, line);
        let held = |tls| sent(Cookie::Login, &headers, tls).collect::<Vec<_>>();
        assert_eq!(held(false), ["one", "three=3"]);
        assert_eq!(held(true), ["two"]);
        assert_eq!(sent(Cookie::Device, &headers, false).count(), 0);
        assert_eq!(
            given(Cookie::Login, "x", true).unwrap(),
            "__Host-netroot=x; Path=/; HttpOnly; SameSite=Strict; Secure"
        );
    }
}
