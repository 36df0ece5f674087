//! The cookie of a login (RFC 6265).

use axum::http::{HeaderMap, HeaderValue, header};

/// Over TLS the name promises what the browser then keeps: sent back only encrypted, to this host, and
/// set by nobody else (draft-ietf-httpbis-rfc6265bis §4.1.3.2).
const OVER_TLS: &str = "__Host-netroot";
const PLAIN: &str = "netroot";

/// What the cookies of a request hold; a browser may send several of one name.
pub(super) fn sent(headers: &HeaderMap, tls: bool) -> impl Iterator<Item = &str> {
    let wanted = name(tls);
    let lines = headers.get_all(header::COOKIE).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(move |(name, _)| *name == wanted)
        .map(|(_, value)| value)
}

/// The header that gives a browser its cookie. It goes when the browser does.
pub(super) fn given(value: &str, tls: bool) -> Option<HeaderValue> {
    set(value, tls, "")
}

/// The header that takes it back.
pub(super) fn taken(tls: bool) -> Option<HeaderValue> {
    set("", tls, "; Max-Age=0")
}

fn set(value: &str, tls: bool, rest: &str) -> Option<HeaderValue> {
    let secure = if tls { "; Secure" } else { "" };
    let name = name(tls);
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{rest}");
    HeaderValue::try_from(text).ok()
}

fn name(tls: bool) -> &'static str {
    match tls {
        true => OVER_TLS,
        false => PLAIN,
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
        let held = |tls| sent(&headers, tls).collect::<Vec<_>>();
        assert_eq!(held(false), ["one", "three=3"]);
        assert_eq!(held(true), ["two"]);
        assert_eq!(
            given("x", true).unwrap(),
            "__Host-netroot=x; Path=/; HttpOnly; SameSite=Strict; Secure"
        );
    }
}
