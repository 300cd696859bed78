//! From words to a tree. Source of the grammar: cel-spec's `CEL.g4`; of the messages: cel-go's parser.
//!
//! The first syntax error ends the parsing: what ANTLR guesses after one helps nobody. Errors of macros and literals do not.

use std::sync::Arc;

use crate::ast::{Element, Entry, Expr, FieldInit, HEIGHT_MAX, Id, Kind, Literal, Select, Struct, operator};
use crate::build::Build;
use crate::issues::Issues;
use crate::lexer::{Token, Word, words};
use crate::macros;

/// The longest expression in characters: cel-go's limit.
pub(crate) const CHARACTERS_MAX: usize = 100_000;

/// What may stand where an expression begins, as ANTLR lists it.
const EXPRESSION_START: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// The same at the beginning of a map, and of a list.
const IN_MAP: &str = "{'[', '{', '}', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, \
                      STRING, BYTES, IDENTIFIER}";
const IN_LIST: &str = "{'[', ']', '{', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, \
                       NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Names that are no variables.
pub(crate) const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// What of the language is switched on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Syntax {
    pub(crate) optionals: bool,
    pub(crate) two_variables: bool,
    pub(crate) bind: bool,
    pub(crate) sort_by: bool,
}

/// A tree and where in the text its nodes stand.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) root: Expr,
    /// For each id, the character from the start of the text.
    pub(crate) places: Vec<usize>,
}

/// Reads an expression.
pub(crate) fn parse(text: &str, syntax: Syntax) -> Result<Parsed, Issues> {
    let mut issues = Issues::new(text);
    let length = text.chars().count();
    if length > CHARACTERS_MAX {
        issues.add_placeless(format!(
            "expression code point size exceeds limit: size: {length}, limit {CHARACTERS_MAX}"
        ));
        return Err(issues);
    }
    let words = words(text, &mut issues);
    let mut parser = Parser {
        words,
        at: 0,
        depth: 0,
        opened_list: false,
        build: Build {
            places: Vec::new(),
            issues,
            syntax,
            too_much: false,
        },
    };
    let root = parser.expression().and_then(|root| {
        let rest = parser.peek().clone();
        match rest.token {
            Token::End => Ok(root),
            _ => Err(parser.unexpected("<EOF>", |next| *next == Token::End)),
        }
    });
    if parser.build.too_much {
        let mut issues = Issues::new(text);
        issues.add_placeless(format!("expression recursion limit exceeded: {HEIGHT_MAX}"));
        return Err(issues);
    }
    match root {
        Ok(root) if parser.build.issues.is_empty() => Ok(Parsed {
            root,
            places: parser.build.places,
        }),
        _ => Err(parser.build.issues.sorted()),
    }
}

/// Marks that the parser gave up; the reason stands among the issues.
pub(crate) struct GaveUp;

struct Parser {
    words: Vec<Word>,
    at: usize,
    depth: u16,
    /// Whether the last `[` opened a list, and not an index.
    opened_list: bool,
    build: Build,
}

impl Parser {
    fn peek(&self) -> &Word {
        &self.words[self.at]
    }

    fn next(&mut self) -> Word {
        let word = self.peek().clone();
        self.at = (self.at + 1).min(self.words.len() - 1);
        word
    }

    fn is(&self, symbol: &'static str) -> bool {
        self.peek().token == Token::Symbol(symbol)
    }

    fn take(&mut self, symbol: &'static str) -> bool {
        let is = self.is(symbol);
        if is {
            self.next();
        }
        is
    }

    fn expect(&mut self, symbol: &'static str) -> Result<usize, GaveUp> {
        let word = self.peek().clone();
        if self.take(symbol) {
            return Ok(word.start);
        }
        Err(match word.token {
            Token::End => self.syntax_error(&word, &format!("missing '{symbol}' at '<EOF>'")),
            _ => self.unexpected(&format!("'{symbol}'"), |next| *next == Token::Symbol(symbol)),
        })
    }

    fn syntax_error(&mut self, word: &Word, message: &str) -> GaveUp {
        self.build.issues.add(word.start, format!("Syntax error: {message}"));
        GaveUp
    }

    /// The next word does not belong here. As ANTLR has it, it is too much when the one after it would fit.
    fn unexpected(&mut self, expected: &str, fits: impl Fn(&Token) -> bool) -> GaveUp {
        let word = self.peek().clone();
        let too_much = self.words.get(self.at + 1).is_some_and(|next| fits(&next.token));
        let what = if too_much { "extraneous" } else { "mismatched" };
        self.syntax_error(&word, &format!("{what} input '{}' expecting {expected}", word.text))
    }

    /// `condition ? one : other`, or less.
    fn expression(&mut self) -> Result<Expr, GaveUp> {
        self.depth += 1;
        if self.depth > HEIGHT_MAX {
            self.build.too_much = true;
        }
        if self.build.too_much {
            return Err(GaveUp);
        }
        let condition = self.binary(0)?;
        let expr = if self.is("?") {
            let place = self.next().start;
            let one = self.binary(0)?;
            self.expect(":")?;
            let other = self.expression()?;
            self.build
                .call(place, operator::CONDITIONAL, vec![condition, one, other])
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// Operators of this level and tighter ones. One frame of the stack a nesting, whatever the number of levels. `||` and
    /// `&&` become balanced trees, as cel-go makes them.
    fn binary(&mut self, loosest: usize) -> Result<Expr, GaveUp> {
        let mut left = self.unary()?;
        while let Some((level, function)) = self.operator(loosest) {
            let mut terms = vec![Some(left)];
            let mut ids = Vec::new();
            while self
                .operator(level)
                .is_some_and(|(next, same)| next == level && same == function)
            {
                let place = self.next().start;
                ids.push(self.build.id(place));
                terms.push(Some(self.binary(level + 1)?));
                if level >= LOGICAL_LEVELS {
                    break;
                }
            }
            left = self.balanced(function, &ids, &mut terms);
            if self.build.too_much {
                return Err(GaveUp);
            }
        }
        Ok(left)
    }

    /// The next word as an operator of this level or a tighter one.
    fn operator(&self, loosest: usize) -> Option<(usize, &'static str)> {
        let Token::Symbol(symbol) = self.peek().token else {
            return None;
        };
        let of = |(level, operators): (usize, &&[(&str, &'static str)])| {
            operators
                .iter()
                .find(|(known, _)| *known == symbol)
                .map(|(_, function)| (level, *function))
        };
        LEVELS.iter().enumerate().skip(loosest).find_map(of)
    }

    /// A tree of `terms` with an operator between each two, no higher than need be.
    fn balanced(&mut self, function: &str, operators: &[Id], terms: &mut [Option<Expr>]) -> Expr {
        if let [only] = terms {
            return only.take().expect("invariant: each term is taken once");
        }
        let middle = operators.len().div_ceil(2) - usize::from(operators.len() % 2 == 1);
        let middle = middle.min(operators.len() - 1);
        let (left, right) = terms.split_at_mut(middle + 1);
        let left = self.balanced(function, &operators[..middle], left);
        let right = self.balanced(function, &operators[middle + 1..], right);
        self.build.call_at(operators[middle], function, None, vec![left, right])
    }

    fn unary(&mut self) -> Result<Expr, GaveUp> {
        for (symbol, function) in [("!", operator::NOT), ("-", operator::NEGATE)] {
            if !self.is(symbol) {
                continue;
            }
            let place = self.next().start;
            let mut count = 1;
            if symbol == "-"
                && matches!(
                    self.peek().token,
                    Token::Int(_) | Token::Double(_) | Token::TooLarge { .. }
                )
            {
                let literal = self.number(true, place);
                return self.member(literal);
            }
            while self.take(symbol) {
                count += 1;
            }
            let operand = self.primary()?;
            let operand = self.member(operand)?;
            if count % 2 == 0 {
                return Ok(operand);
            }
            return Ok(self.build.call(place, function, vec![operand]));
        }
        let operand = self.primary()?;
        self.member(operand)
    }

    fn number(&mut self, negative: bool, place: usize) -> Expr {
        let word = self.next();
        let literal = match word.token {
            Token::Int(value) => i64::try_from(if negative { -value } else { value })
                .ok()
                .map(Literal::Int),
            Token::Uint(value) => u64::try_from(value).ok().map(Literal::Uint),
            Token::Double(value) => Some(Literal::Double(if negative { -value } else { value })),
            _ => None,
        };
        if let Some(literal) = literal {
            return self.build.literal(place, literal);
        }
        let unsigned = matches!(word.token, Token::Uint(_) | Token::TooLarge { unsigned: true });
        self.build.issues.add(
            place,
            if unsigned {
                "invalid uint literal"
            } else {
                "invalid int literal"
            },
        );
        self.build.literal(place, Literal::Null)
    }

    /// What follows an operand: selections, calls, indices.
    fn member(&mut self, mut operand: Expr) -> Result<Expr, GaveUp> {
        loop {
            if self.build.too_much {
                return Err(GaveUp);
            }
            if self.is(".") {
                let dot = self.next().start;
                operand = self.selection(operand, dot)?;
            } else if self.is("[") {
                let place = self.next().start;
                self.opened_list = false;
                let optional = self.optional_mark(place, "unsupported syntax '[?'");
                let id = self.build.id(place);
                let index = self.expression()?;
                self.expect("]")?;
                let function = if optional {
                    operator::OPTIONAL_INDEX
                } else {
                    operator::INDEX
                };
                operand = self.build.call_at(id, function, None, vec![operand, index]);
            } else {
                return Ok(operand);
            }
        }
    }

    fn optional_mark(&mut self, place: usize, unsupported: &str) -> bool {
        let there = self.take("?");
        if there && !self.build.syntax.optionals {
            self.build.issues.add(place, unsupported);
        }
        there
    }

    fn selection(&mut self, operand: Expr, dot: usize) -> Result<Expr, GaveUp> {
        let optional = self.optional_mark(dot, "unsupported syntax '.?'");
        let word = self.next();
        let field = match &word.token {
            Token::Ident(name) if !optional && self.is("(") => return self.member_call(operand, &name.clone()),
            Token::Ident(name) | Token::Quoted(name) => name.clone(),
            Token::Symbol(_) if word.text.starts_with(|one: char| one.is_ascii_alphabetic()) => {
                return Err(self.syntax_error(&word, &format!("mismatched input '{}' expecting IDENTIFIER", word.text)));
            }
            _ if optional => {
                let message = format!(
                    "mismatched input '{}' expecting {{IDENTIFIER, ESC_IDENTIFIER}}",
                    word.text
                );
                return Err(self.syntax_error(&word, &message));
            }
            _ => {
                let message = format!("no viable alternative at input '.{}'", word.text.replace("<EOF>", ""));
                return Err(self.syntax_error(&word, &message));
            }
        };
        if optional {
            let id = self.build.id(dot);
            let name = self.build.literal(word.start, Literal::String(field));
            return Ok(self
                .build
                .call_at(id, operator::OPTIONAL_SELECT, None, vec![operand, name]));
        }
        if self.is("{")
            && let Some(prefix) = dotted(&operand)
        {
            return self.made(&format!("{prefix}.{field}"));
        }
        Ok(self.build.new_node(
            dot,
            Kind::Select(Box::new(Select {
                operand,
                field,
                test: false,
            })),
        ))
    }

    fn member_call(&mut self, target: Expr, name: &str) -> Result<Expr, GaveUp> {
        let open = self.expect("(")?;
        let id = self.build.id(open);
        let arguments = self.arguments()?;
        Ok(macros::call(&mut self.build, id, name, Some(target), arguments))
    }

    /// The rest of a call's brackets.
    fn arguments(&mut self) -> Result<Vec<Expr>, GaveUp> {
        let mut arguments = Vec::new();
        if self.take(")") {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression()?);
            if !self.take(",") {
                self.expect(")")?;
                return Ok(arguments);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, GaveUp> {
        let word = self.peek().clone();
        let literal = match &word.token {
            Token::Int(_) | Token::Uint(_) | Token::Double(_) | Token::TooLarge { .. } => {
                return Ok(self.number(false, word.start));
            }
            Token::String(text) => Literal::String(text.clone()),
            Token::Bytes(bytes) => Literal::Bytes(bytes.clone()),
            Token::Symbol("true") => Literal::Bool(true),
            Token::Symbol("false") => Literal::Bool(false),
            Token::Symbol("null") => Literal::Null,
            Token::Symbol("(") => {
                self.next();
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Symbol("[") => return self.list(),
            Token::Symbol("{") => return self.map(),
            Token::Ident(name) => {
                self.next();
                return self.name(word.start, name.to_string());
            }
            Token::Symbol(".")
                if matches!(
                    self.words.get(self.at + 1).map(|next| &next.token),
                    Some(Token::Ident(_))
                ) =>
            {
                self.next();
                let name = self.next();
                return self.name(name.start, format!(".{}", name.text));
            }
            _ => {
                let opened = self.at.checked_sub(1).map(|before| &self.words[before].token);
                let expected = match opened {
                    Some(Token::Symbol("{")) => IN_MAP,
                    Some(Token::Symbol("[")) if self.opened_list => IN_LIST,
                    _ => EXPRESSION_START,
                };
                return Err(self.unexpected(expected, begins_expression));
            }
        };
        self.next();
        Ok(self.build.literal(word.start, literal))
    }

    /// A variable, a global call or a record, by its name.
    fn name(&mut self, place: usize, name: String) -> Result<Expr, GaveUp> {
        if self.is("{") {
            return self.made(&name);
        }
        let bare = name.trim_start_matches('.');
        if RESERVED.contains(&bare) {
            let id = self.build.id(place);
            let error = self.build.error(id, format!("reserved identifier: {bare}"));
            if !self.is("(") {
                return Ok(error);
            }
        }
        if !self.is("(") {
            return Ok(self.build.ident(place, &name));
        }
        let open = self.expect("(")?;
        let id = self.build.id(open);
        let arguments = self.arguments()?;
        Ok(macros::call(&mut self.build, id, &name, None, arguments))
    }

    fn list(&mut self) -> Result<Expr, GaveUp> {
        let place = self.next().start;
        self.opened_list = true;
        let id = self.build.id(place);
        let mut elements = Vec::new();
        while !self.take("]") {
            let start = self.peek().start;
            let optional = self.optional_mark(start, "unsupported syntax '?'");
            elements.push(Element {
                value: self.expression()?,
                optional,
            });
            if !self.take(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(self.build.node(id, Kind::List(elements)))
    }

    fn map(&mut self) -> Result<Expr, GaveUp> {
        let place = self.next().start;
        let id = self.build.id(place);
        let mut entries = Vec::new();
        while !self.take("}") {
            let start = self.peek().start;
            let optional = self.optional_mark(start, "unsupported syntax '?'");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push(Entry {
                key,
                value: self.expression()?,
                optional,
            });
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(self.build.node(id, Kind::Map(entries)))
    }

    /// A record; its place is the brace, as cel-go's is.
    fn made(&mut self, name: &str) -> Result<Expr, GaveUp> {
        let open = self.expect("{")?;
        let id = self.build.id(open);
        let mut fields = Vec::new();
        while !self.take("}") {
            let start = self.peek().start;
            let optional = self.optional_mark(start, "unsupported syntax '?'");
            let word = self.next();
            let (Token::Ident(field) | Token::Quoted(field)) = &word.token else {
                let message = format!(
                    "mismatched input '{}' expecting {{'}}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}}",
                    word.text
                );
                return Err(self.syntax_error(&word, &message));
            };
            let colon = self.expect(":")?;
            let id = self.build.id(colon);
            fields.push(FieldInit {
                id,
                name: field.clone(),
                value: self.expression()?,
                optional,
            });
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(self.build.node(
            id,
            Kind::Struct(Box::new(Struct {
                name: Arc::from(name),
                fields,
            })),
        ))
    }
}

/// Whether an expression may begin with a word.
fn begins_expression(token: &Token) -> bool {
    match token {
        Token::Symbol(symbol) => ["[", "{", "(", ".", "-", "!", "true", "false", "null"].contains(symbol),
        Token::End | Token::Quoted(_) => false,
        _ => true,
    }
}

/// So many levels are logical.
const LOGICAL_LEVELS: usize = 2;
/// Operators from the loosest to the tightest.
const LEVELS: [&[(&str, &str)]; 5] = [
    &[("||", operator::OR)],
    &[("&&", operator::AND)],
    &[
        ("<", operator::LESS),
        ("<=", operator::LESS_EQUALS),
        (">=", operator::GREATER_EQUALS),
        (">", operator::GREATER),
        ("==", operator::EQUALS),
        ("!=", operator::NOT_EQUALS),
        ("in", operator::IN),
    ],
    &[("+", operator::ADD), ("-", operator::SUBTRACT)],
    &[
        ("*", operator::MULTIPLY),
        ("/", operator::DIVIDE),
        ("%", operator::MODULO),
    ],
];

/// `a.b.c` when that is all an expression is.
pub(crate) fn dotted(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.to_string()),
        Kind::Select(select) if !select.test => Some(format!("{}.{}", dotted(&select.operand)?, select.field)),
        _ => None,
    }
}
