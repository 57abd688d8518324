//! Shapes made ready: one prefilter over all hints, patterns compiled when first needed, and what becomes of a text that holds a secret. Pure. Invariants:
//! no replacement is longer than what it replaces; what is a marker already stays.

use std::fmt;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, MatchKind, Span, packed};
use regex::Regex;
use regex_syntax::hir::literal::Extractor;

use super::rules::Shape;

/// A bit for each rule.
type Rules = u128;
/// Most rules.
const MOST: usize = 120;

struct Rule {
    name: Box<str>,
    pattern: Box<str>,
    regex: OnceLock<Option<Regex>>,
}

enum Finder {
    /// Vector instructions: a clean record costs some ten nanoseconds.
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
    Nothing,
}

/// Looks for hints, and knows which rules each stands for.
struct Hints {
    finder: Finder,
    rules: Vec<Rules>,
}

/// The compiled rules.
pub(crate) struct Shapes {
    rules: Vec<Rule>,
    /// Hints of three bytes, and longer ones: apart, since the vector search looks at as many bytes as the shortest has, and three tell much less than four.
    hints: [Hints; 2],
    /// Rules that no hint stands for: tried on every text.
    always: Rules,
}

/// Where a secret stands, and the rule that found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) start: usize,
    pub(crate) end: usize,
    rule: usize,
}

impl fmt::Debug for Shapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rules.iter().map(|r| &r.name)).finish()
    }
}

impl Shapes {
    /// Compiles; the error names the rule.
    pub(crate) fn new(shapes: &[Shape]) -> Result<Self, String> {
        if shapes.len() > MOST {
            return Err(format!("{} shapes are more than {MOST}", shapes.len()));
        }
        let (mut rules, mut hints, mut always): (Vec<Rule>, Vec<(String, Rules)>, Rules) = (Vec::new(), Vec::new(), 0);
        for (i, shape) in shapes.iter().enumerate() {
            let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            if !(1..=64).contains(&shape.name.len()) || !shape.name.bytes().all(valid) {
                return Err(format!("{:?} is no name for a shape: 1 to 64 of A-Z a-z 0-9 _ - .", shape.name));
            }
            let regex = OnceLock::new();
            let mut own: Vec<String> = shape.hints.iter().map(|h| (*h).to_owned()).collect();
            if own.is_empty() {
                // Ours are tested; a caller's must be right before the trail is opened.
                let compiled = Regex::new(&shape.pattern).map_err(|e| format!("the shape `{}`: {e}", shape.name))?;
                let _ = regex.set(Some(compiled));
                own = beginnings(&shape.pattern).unwrap_or_default();
            }
            if own.is_empty() {
                always |= 1 << i;
            }
            hints.extend(own.into_iter().map(|h| (h, 1 << i)));
            rules.push(Rule { name: shape.name.as_ref().into(), pattern: shape.pattern.as_ref().into(), regex });
        }
        // At one place the finder tells one hint: where one begins with another, the shorter stands for both.
        hints.sort();
        let mut kept: Vec<(String, Rules)> = Vec::new();
        for (hint, mask) in hints {
            match kept.last_mut().filter(|(k, _)| hint.starts_with(k.as_str())) {
                Some((_, m)) => *m |= mask,
                None => kept.push((hint, mask)),
            }
        }
        let (short, long) = kept.into_iter().partition(|(h, _)| h.len() < 4);
        Ok(Self { rules, hints: [Hints::new(short)?, Hints::new(long)?], always })
    }

    /// Looks through bytes for places where a secret may be: one pass, no allocation. Escapes of JSON hide no hint.
    #[inline]
    pub(crate) fn suspects(&self) -> Suspects<'_> {
        Suspects { shapes: self, next: [None; 2] }
    }

    /// The secrets in a text, in order, apart from each other.
    pub(crate) fn find(&self, text: &str) -> Vec<Found> {
        let mut rules = self.always;
        for hints in &self.hints {
            let mut at = 0;
            while let Some((start, stands_for)) = hints.find(text.as_bytes(), at) {
                rules |= stands_for;
                at = start + 1;
            }
        }
        let mut found: Vec<Found> = Vec::new();
        for (i, rule) in self.rules.iter().enumerate().filter(|(i, _)| rules >> i & 1 == 1) {
            let Some(regex) = rule.regex.get_or_init(|| Regex::new(&rule.pattern).ok()) else { continue };
            let mut add = |m: regex::Match<'_>| {
                if !m.is_empty() && !stays(m.as_str()) {
                    found.push(Found { start: m.start(), end: m.end(), rule: i });
                }
            };
            if regex.captures_len() == 1 {
                regex.find_iter(text).for_each(add);
            } else if regex.is_match(text) {
                for groups in regex.captures_iter(text) {
                    let group = groups.iter().skip(1).flatten().next();
                    group.or_else(|| groups.get(0)).into_iter().for_each(&mut add);
                }
            }
        }
        found.sort_unstable_by_key(|f| (f.start, f.end));
        found.dedup_by(|next, last| {
            let overlap = next.start < last.end;
            if overlap {
                last.end = last.end.max(next.end);
                last.rule = last.rule.min(next.rule);
            }
            overlap
        });
        found
    }

    /// The name of the rule that found it.
    pub(crate) fn name(&self, found: &Found) -> &str {
        self.rules.get(found.rule).map_or("", |r| &r.name)
    }

    /// The text with markers in place of what was found. `number` tells texts apart that would become equal; 0 is none.
    pub(crate) fn replace(&self, text: &str, found: &[Found], number: usize) -> String {
        let (mut out, mut at) = (String::with_capacity(text.len()), 0);
        for f in found {
            out.push_str(text.get(at..f.start).unwrap_or_default());
            mark(self.name(f), number, f.end - f.start, &mut out);
            at = f.end;
        }
        out.push_str(text.get(at..).unwrap_or_default());
        out
    }

    /// The text without secrets; `None` if it has none.
    pub(crate) fn text(&self, text: &str) -> Option<String> {
        self.suspects().from(text.as_bytes(), 0)?;
        let found = self.find(text);
        (!found.is_empty()).then(|| self.replace(text, &found, 0))
    }

    #[cfg(test)]
    pub(crate) fn is_packed(&self) -> bool {
        self.hints.iter().all(|h| matches!(h.finder, Finder::Packed(_)))
    }
}

/// The way through some bytes. It remembers what lies ahead, so that asking again does not search again.
pub(crate) struct Suspects<'s> {
    shapes: &'s Shapes,
    /// The next hint of either kind; the end of the bytes if there is none.
    next: [Option<usize>; 2],
}

impl Suspects<'_> {
    /// The first place at or after `at`, which never goes back.
    #[inline]
    pub(crate) fn from(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        if self.shapes.always != 0 {
            return (at < bytes.len()).then_some(at);
        }
        for (hints, next) in self.shapes.hints.iter().zip(&mut self.next) {
            if next.is_none_or(|n| n < at) {
                *next = Some(hints.find(bytes, at).map_or(bytes.len(), |(start, _)| start));
            }
        }
        self.next.iter().flatten().min().copied().filter(|n| *n < bytes.len())
    }
}

impl Hints {
    fn new(hints: Vec<(String, Rules)>) -> Result<Self, String> {
        let texts = || hints.iter().map(|(h, _)| h.as_str());
        let finder = match hints.is_empty() {
            true => Finder::Nothing,
            // The limits are for patterns of one byte.
            false => match packed::Config::new().heuristic_pattern_limits(false).builder().extend(texts()).build() {
                Some(s) => Finder::Packed(s),
                None => AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostFirst)
                    .build(texts())
                    .map(Finder::Automaton)
                    .map_err(|e| format!("the shapes' hints: {e}"))?,
            },
        };
        Ok(Self { finder, rules: hints.iter().map(|(_, m)| *m).collect() })
    }

    /// The first hint at or after `at`: where, and the rules it stands for.
    #[inline]
    fn find(&self, bytes: &[u8], at: usize) -> Option<(usize, Rules)> {
        let found = match &self.finder {
            Finder::Packed(s) => s.find_in(bytes, Span::from(at..bytes.len())),
            Finder::Automaton(a) => a.find(aho_corasick::Input::new(bytes).span(at..bytes.len())),
            Finder::Nothing => None,
        };
        found.map(|m| (m.start(), self.rules.get(m.pattern().as_usize()).copied().unwrap_or(0)))
    }
}

/// Appends the longest marker that is no longer than `room` bytes.
fn mark(name: &str, number: usize, room: usize, out: &mut String) {
    let number = if number == 0 { String::new() } else { number.to_string() };
    let numbered = |text: String| if number.is_empty() { text } else { format!("{text}#{number}") };
    let forms = [format!("[{}]", numbered(format!("redacted:{name}"))), format!("[{}]", numbered("redacted".into()))];
    match forms.into_iter().find(|f| f.len() <= room) {
        Some(form) => out.push_str(&form),
        None if !number.is_empty() && number.len() <= room => out.push_str(&number),
        None => out.extend(std::iter::repeat_n('*', room.min(3))),
    }
}

/// Whether what a pattern found is a marker already, stands for a value that comes from elsewhere, or is no secret in any grammar.
fn stays(text: &str) -> bool {
    let within = |open, close| text.strip_prefix(open).and_then(|t: &str| t.strip_suffix(close));
    let one = |inside: Option<&str>, bad: &[char]| inside.is_some_and(|t| !t.is_empty() && !t.contains(bad));
    text.bytes().all(|b| b == b'*')
        || text == "[redacted]"
        || one(within("[redacted:", "]"), &['[', ']'])
        || one(within("[redacted#", "]"), &['[', ']'])
        || one(within("${", "}"), &['{', '}'])
        || one(within("{{", "}}"), &['{', '}'])
        || one(within("<", ">"), &['<', '>'])
        || ["true", "false", "null", "none", "nil", "undefined"].iter().any(|w| text.eq_ignore_ascii_case(w))
}

/// Texts with which each match begins, if there are few and each is long enough to be rare, and none that JSON escapes.
fn beginnings(pattern: &str) -> Option<Vec<String>> {
    let hir = regex_syntax::parse(pattern).ok()?;
    let mut found = Extractor::new().extract(&hir);
    found.minimize_by_preference();
    let literals = found.literals().filter(|l| !l.is_empty() && l.len() <= 16)?;
    let plain = |l: &regex_syntax::hir::literal::Literal| {
        let text = std::str::from_utf8(l.as_bytes()).ok()?;
        let rare = text.len() >= 3 && !text.chars().any(|c| c.is_control() || c == '"' || c == '\\');
        rare.then(|| text.to_owned())
    };
    literals.iter().map(plain).collect()
}
