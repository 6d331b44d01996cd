//! Which test cites which requirement: the `req:` comments in the sources.
//!
//! One form counts, on a line of its own above the attributes of a test:
//!
//! ```text
//! // req: B2-OPEN-R-20, B2-OPEN-S-20
//! #[test]
//! fn open_channel_refused_when_dust_limit_is_353() {
//! ```
//!
//! What comes close without being that is an error, for otherwise it would silently count for
//! nothing: another spelling, an ID that does not exist, a comment that is above no test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::requirement::Requirements;

/// A line of a source file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What is wrong with a citation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadCitation {
    #[error("only `// req: ID[, ID…]` is read, and this is not quite that")]
    Form,
    #[error("{0} is no requirement")]
    UnknownId(String),
    #[error("{0} is named twice")]
    Repeated(String),
    #[error("no test follows this citation")]
    NoTest,
    #[error("the test that cites this is ignored, and shows nothing")]
    Ignored,
}

/// What a search through the sources found.
#[derive(Debug, Default)]
pub(crate) struct Citations {
    /// The tests that cite each requirement, as `file::name`.
    pub(crate) by_id: BTreeMap<String, Vec<String>>,
    /// Every test there is, with or without a citation.
    pub(crate) tests: BTreeSet<String>,
    /// Citations that count for nothing.
    pub(crate) bad: Vec<(Place, BadCitation)>,
}

impl Citations {
    /// Reads one source file; `file` is the name it is reported by.
    pub(crate) fn read(&mut self, file: &str, source: &str, requirements: &Requirements) {
        let mut item = Item::default();
        let mut lines = source.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let place = || Place { file: file.to_owned(), line: index + 1 };
            let mut code = line.trim();
            if code.starts_with("//") {
                match parse_citation(code) {
                    Some(Ok(ids)) if !item.has_attributes => item.cite(place(), ids),
                    Some(Ok(_)) => self.bad.push((place(), BadCitation::NoTest)),
                    Some(Err(bad)) => self.bad.push((place(), bad)),
                    None => {}
                }
                continue;
            }
            let mut attribute = String::new();
            while code.starts_with("#[") || !attribute.is_empty() {
                attribute.push_str(code);
                if let Some(end) = attribute_end(&attribute) {
                    item.attribute(&attribute[..end]);
                    code = code[code.len() - (attribute.len() - end)..].trim_start();
                    attribute.clear();
                } else if let Some((_, next)) = lines.next() {
                    code = next.trim();
                } else {
                    break;
                }
            }
            // A line that ends with an attribute leaves the item open for what comes next.
            if !(code.is_empty() && item.has_attributes) {
                self.end(file, std::mem::take(&mut item), function_name(code), requirements);
            }
        }
        self.end(file, item, None, requirements);
    }

    /// The item that `item` collected for is there, and is a function if it has a name.
    fn end(&mut self, file: &str, item: Item, name: Option<&str>, requirements: &Requirements) {
        let test = name.filter(|_| item.is_test).map(|name| format!("{file}::{name}"));
        self.tests.extend(test.clone());
        for (place, ids) in item.citations {
            match &test {
                None => self.bad.push((place, BadCitation::NoTest)),
                Some(_) if item.is_ignored => self.bad.push((place, BadCitation::Ignored)),
                Some(test) => self.credit(test, place, ids, requirements),
            }
        }
    }

    fn credit(&mut self, test: &str, place: Place, ids: Vec<String>, requirements: &Requirements) {
        for id in ids {
            if !requirements.contains(&id) {
                self.bad.push((place.clone(), BadCitation::UnknownId(id)));
                continue;
            }
            let tests = self.by_id.entry(id.clone()).or_default();
            if tests.iter().any(|known| known == test) {
                self.bad.push((place.clone(), BadCitation::Repeated(id)));
            } else {
                tests.push(test.to_owned());
            }
        }
    }
}

/// What stands above an item, until the item itself comes.
#[derive(Default)]
struct Item {
    citations: Vec<(Place, Vec<String>)>,
    has_attributes: bool,
    is_test: bool,
    is_ignored: bool,
}

impl Item {
    fn cite(&mut self, place: Place, ids: Vec<String>) {
        self.citations.push((place, ids));
    }

    fn attribute(&mut self, attribute: &str) {
        self.has_attributes = true;
        let path = attribute.trim_start_matches("#[").split(['(', '=', ']']).next();
        match path.unwrap_or_default().rsplit("::").next().map(str::trim) {
            Some("test") => self.is_test = true,
            Some("ignore") => self.is_ignored = true,
            _ => {}
        }
    }
}

/// `None` if the comment is about something else.
fn parse_citation(comment: &str) -> Option<Result<Vec<String>, BadCitation>> {
    let said = comment.trim_start_matches('/').trim_start_matches('!').trim_start();
    if !said.get(..4)?.eq_ignore_ascii_case("req:") {
        return None;
    }
    let Some(list) = comment.strip_prefix("// req: ") else { return Some(Err(BadCitation::Form)) };
    let ids: Vec<_> = list.split(", ").map(str::to_owned).collect();
    let plain = |id: &String| {
        !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    Some(if ids.iter().all(plain) { Ok(ids) } else { Err(BadCitation::Form) })
}

/// Where the attribute that `text` begins with ends; `None` if it goes on in the next line.
fn attribute_end(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (position, character) in text.char_indices() {
        match character {
            '[' => depth += 1,
            ']' if depth == 1 => return Some(position + 1),
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The name of the function that `code` declares, if it declares one.
fn function_name(code: &str) -> Option<&str> {
    let modifiers = ["pub", "pub(crate)", "pub(super)", "async", "const"];
    let mut words = code.split_whitespace().skip_while(|word| modifiers.contains(word));
    if words.next()? != "fn" {
        return None;
    }
    words.next()?.split(['(', '<']).next()
}

#[cfg(test)]
mod tests {
    use super::super::requirement::tests::requirements;
    use super::*;

    // The sources below are joined from lines, so that this file's own citations stay none.
    fn read(lines: &[&str]) -> Citations {
        let mut citations = Citations::default();
        let known = requirements(&[("A-B-01", "MUST"), ("A-B-02", "MAY"), ("A-C-01", "DEF")]);
        citations.read("a.rs", &lines.join("\n"), &known);
        citations
    }

    fn credited(lines: &[&str]) -> Vec<(String, Vec<String>)> {
        let found = read(lines);
        assert_eq!(found.bad, [], "{lines:?}");
        found.by_id.into_iter().collect()
    }

    fn refused(lines: &[&str]) -> Vec<(usize, BadCitation)> {
        let found = read(lines);
        assert!(found.by_id.is_empty(), "{lines:?} counted for {:?}", found.by_id);
        found.bad.into_iter().map(|(place, bad)| (place.line, bad)).collect()
    }

    #[test]
    fn a_test_is_credited_with_every_requirement_it_cites() {
        let cited = credited(&["    // req: A-B-01, A-C-01", "    #[test]", "    fn works() {"]);
        let test = vec!["a.rs::works".to_owned()];
        assert_eq!(cited, [("A-B-01".to_owned(), test.clone()), ("A-C-01".to_owned(), test)]);
    }

    #[test]
    fn all_the_ways_to_write_a_test_are_known() {
        for below in [
            &["#[test]", "fn works() {"][..],
            &["#[test] fn works() {"],
            &["#[tokio::test]", "async fn works() {"],
            &["#[tokio::test(start_paused = true)]", "async fn works() {"],
            &["#[tokio::test(", "    flavor = \"multi_thread\",", ")]", "async fn works() {"],
            &["#[test]", "#[should_panic(expected = \"bound\")]", "fn works() {"],
            &["#[cfg(unix)]", "#[test]", "fn works() {"],
            &["// why it is hard", "#[test]", "fn works() {"],
            &["#[test]", "fn works(x in 0..=1, y in any::<u64>()) {"],
            &["#[test]", "pub(crate) async fn works<T>() {"],
        ] {
            let lines = [&["// req: A-B-01"], below].concat();
            let cited = credited(&lines);
            assert_eq!(cited, [("A-B-01".to_owned(), vec!["a.rs::works".to_owned()])], "{below:?}");
        }
    }

    #[test]
    fn a_long_list_may_take_several_lines_and_several_tests_may_share_a_requirement() {
        let lines = ["// req: A-B-01", "// req: A-B-02", "#[test]", "fn one() {}", ""];
        let more = ["// req: A-B-02", "#[test]", "fn two() {}"];
        let cited = credited(&[&lines[..], &more[..]].concat());
        assert_eq!(cited[0].1, ["a.rs::one"]);
        assert_eq!(cited[1].1, ["a.rs::one", "a.rs::two"]);
    }

    #[test]
    fn a_citation_above_no_test_is_an_error() {
        for below in [
            &["fn helper() {"][..],
            &["#[cfg(test)]", "mod tests {"],
            &["#[allow(dead_code)]", "fn helper() {", "}", "#[test]", "fn works() {"],
            &["", "#[test]", "fn works() {"],
            &["const X: u8 = 1;", "#[test]", "fn works() {"],
            &[],
        ] {
            let lines = [&["// req: A-B-01"], below].concat();
            assert_eq!(refused(&lines), [(1, BadCitation::NoTest)], "{below:?}");
        }
        // Below the attribute it would be easy to overlook.
        let lines = ["#[test]", "// req: A-B-01", "fn works() {"];
        assert_eq!(refused(&lines), [(2, BadCitation::NoTest)]);
    }

    #[test]
    fn a_spelling_that_would_not_count_is_an_error() {
        for citation in [
            "//req: A-B-01",
            "/// req: A-B-01",
            "//! req: A-B-01",
            "// Req: A-B-01",
            "// req:A-B-01",
            "// req: A-B-01,A-C-01",
            "// req: A-B-01 A-C-01",
            "// req: A-B-01, ",
            "// req: A-B-01 (the bound)",
            "// req:",
        ] {
            let lines = [citation, "#[test]", "fn works() {"];
            assert_eq!(refused(&lines), [(1, BadCitation::Form)], "{citation}");
        }
    }

    #[test]
    fn an_id_has_to_exist_and_is_named_once() {
        let unknown = refused(&["// req: A-B-99", "#[test]", "fn works() {"]);
        assert_eq!(unknown, [(1, BadCitation::UnknownId("A-B-99".to_owned()))]);

        let twice = read(&["// req: A-B-01, A-B-01", "#[test]", "fn works() {"]);
        let place = Place { file: "a.rs".to_owned(), line: 1 };
        assert_eq!(twice.bad, [(place, BadCitation::Repeated("A-B-01".to_owned()))]);
    }

    #[test]
    fn an_ignored_test_shows_nothing() {
        let lines = ["// req: A-B-01", "#[test]", "#[ignore = \"slow\"]", "fn works() {"];
        assert_eq!(refused(&lines), [(1, BadCitation::Ignored)]);
    }

    #[test]
    fn other_comments_are_left_alone() {
        for comment in ["// request: later", "// see the req: line", "//", "// é", "/// Requires."]
        {
            let found = read(&[comment, "#[test]", "fn works() {"]);
            assert_eq!(found.bad, [], "{comment}");
            assert!(found.tests.contains("a.rs::works"), "{comment}");
        }
    }
}
