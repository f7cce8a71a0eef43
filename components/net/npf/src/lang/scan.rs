//! Text to tokens, and tokens to lines.

use super::SyntaxError;

/// A word or a sign, and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Token<'_> {
    pub(super) fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            line: self.line,
            column: self.column,
            message: message.into(),
        }
    }
}

/// The signs, the longer ones first.
const SIGNS: [&str; 9] = ["->", "{", "}", "(", ")", "<", ">", ",", "!"];

/// The lines that say something, as tokens. What is in braces belongs to the line where they open.
pub(super) fn lines(text: &str) -> Result<Vec<Vec<Token<'_>>>, SyntaxError> {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    let mut open: Option<Token<'_>> = None;
    for (number, text) in text.lines().enumerate() {
        for token in tokens(text, number + 1) {
            match (token.text, &open) {
                ("{", Some(_)) => {
                    return Err(token.error("a list in a list; write one, with commas"));
                }
                ("{", None) => open = Some(token),
                ("}", _) => open = None,
                _ => {}
            }
            line.push(token);
        }
        if open.is_none() && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
    }
    match open {
        Some(brace) => Err(brace.error("\"{\" is not closed; end the list with \"}\"")),
        None => Ok(lines),
    }
}

fn tokens(text: &str, line: usize) -> impl Iterator<Item = Token<'_>> {
    let code = text.split('#').next().unwrap_or_default();
    let mut rest = code;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let column = code[..code.len() - rest.len()].chars().count() + 1;
        let len = match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => sign.len(),
            None => word(rest),
        };
        let (text, after) = rest.split_at(len);
        rest = after;
        (len > 0).then_some(Token { text, line, column })
    })
}

/// How long the word is that a text begins with.
fn word(text: &str) -> usize {
    let ends = |&(at, c): &(usize, char)| {
        c.is_whitespace() || SIGNS.iter().any(|sign| text[at..].starts_with(sign))
    };
    text.char_indices()
        .find(ends)
        .map_or(text.len(), |(at, _)| at)
}
