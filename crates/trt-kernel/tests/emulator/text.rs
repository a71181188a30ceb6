//! PTX text as statements: tokens, declarations, operands. Names are not resolved here.
//!
//! Only the forms that the back end writes are read; anything else is an error with its line.

use super::error::{EmuError, Why};
use super::scopes::Scope;
use super::tokens::{Token, float, number, tokens};

/// A module, as written.
#[derive(Debug, Default)]
pub struct Module {
    pub target: String,
    /// Dynamic shared memory, declared outside of entries: name and alignment.
    pub dynamic: Vec<(String, usize)>,
    pub entries: Vec<Entry>,
}

/// An entry, as written.
#[derive(Debug, Default)]
pub struct Entry {
    pub name: String,
    pub params: Vec<Array>,
    pub max_threads: Option<u32>,
    /// Names and the type of each.
    pub regs: Vec<(String, String)>,
    pub shared: Vec<Array>,
    /// Names and the statement that each stands before.
    pub labels: Vec<(String, usize)>,
    pub body: Vec<Statement>,
    /// Scopes that were closed.
    scopes: usize,
}

/// A declaration of bytes.
#[derive(Debug)]
pub struct Array {
    pub name: String,
    pub align: usize,
    pub bytes: usize,
}

/// An instruction.
#[derive(Debug)]
pub struct Statement {
    pub line: u32,
    /// A predicate and the value it must have.
    pub guard: Option<(String, bool)>,
    pub opcode: String,
    pub operands: Vec<Operand>,
}

/// What stands between commas.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Name(String),
    Imm(i64),
    /// The bits of a float.
    Float(u32),
    Double(u64),
    /// `name + constant`.
    Sum(String, i64),
    /// `[base + constant]`; no base for a constant address.
    Address(Option<String>, i64),
    Vector(Vec<Operand>),
    /// `[map, {indices}]`.
    Box(String, Vec<Operand>),
    /// `p|q`.
    Pair(String, String),
    /// `!p`.
    Not(String),
    /// `_`.
    Sink,
}

struct Reader {
    tokens: Vec<(Token, u32)>,
    at: usize,
}

type Result<T> = std::result::Result<T, EmuError>;

/// Reads a module.
pub fn parse(text: &str) -> Result<Module> {
    let mut r = Reader {
        tokens: tokens(text)?,
        at: 0,
    };
    let mut module = Module::default();
    while r.at < r.tokens.len() {
        let word = r.word()?;
        match word.as_str() {
            ".version" | ".address_size" => drop(r.word()?),
            ".target" => module.target = r.word()?,
            ".extern" => {
                r.expect_word(".shared")?;
                let array = r.array(true)?;
                r.expect(';')?;
                module.dynamic.push((array.name, array.align));
            }
            ".visible" => {
                r.expect_word(".entry")?;
                let entry = r.entry()?;
                module.entries.push(entry);
            }
            _ => return r.fail(format!("unknown directive {word}")),
        }
    }
    Ok(module)
}

impl Reader {
    fn line(&self) -> u32 {
        let at = self.at.min(self.tokens.len().saturating_sub(1));
        self.tokens.get(at).map_or(0, |t| t.1)
    }

    fn fail<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(EmuError::text(self.line(), Why::Text(what.into())))
    }

    fn next(&mut self) -> Result<Token> {
        match self.tokens.get(self.at) {
            Some((t, _)) => {
                self.at += 1;
                Ok(t.clone())
            }
            None => self.fail("the text ends early"),
        }
    }

    fn word(&mut self) -> Result<String> {
        match self.next()? {
            Token::Word(w) => Ok(w),
            Token::Mark(c) => self.fail(format!("expected a word, found '{c}'")),
        }
    }

    fn accept(&mut self, mark: char) -> bool {
        let found = matches!(self.tokens.get(self.at), Some((Token::Mark(c), _)) if *c == mark);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: char) -> Result<()> {
        if self.accept(mark) {
            return Ok(());
        }
        self.fail(format!(
            "expected '{mark}' at {:?}",
            self.tokens.get(self.at)
        ))
    }

    fn expect_word(&mut self, word: &str) -> Result<()> {
        let found = self.word()?;
        if found == word {
            return Ok(());
        }
        self.fail(format!("expected {word}, found {found}"))
    }

    fn number(&mut self) -> Result<i64> {
        let minus = self.accept('-');
        let word = self.word()?;
        match number(&word) {
            Some(n) => Ok(if minus { n.wrapping_neg() } else { n }),
            None => self.fail(format!("{word} is no number")),
        }
    }

    /// `.align a .b8 name[bytes]`, or `.type name`, after the state space.
    fn array(&mut self, unsized_: bool) -> Result<Array> {
        let mut align = None;
        let mut ty = self.word()?;
        if ty == ".align" {
            align = Some(self.number()? as usize);
            ty = self.word()?;
        }
        let size = match ty.as_str() {
            ".b8" | ".u8" => 1,
            ".b16" | ".u16" => 2,
            ".b32" | ".u32" | ".s32" | ".f32" => 4,
            ".b64" | ".u64" | ".s64" => 8,
            _ => return self.fail(format!("unknown type {ty}")),
        };
        let name = self.word()?;
        let count = match self.accept('[') {
            true if unsized_ => 0,
            true => self.number()? as usize,
            false => 1,
        };
        if self
            .tokens
            .get(self.at)
            .is_some_and(|t| t.0 == Token::Mark(']'))
        {
            self.expect(']')?;
        }
        Ok(Array {
            name,
            align: align.unwrap_or(size),
            bytes: count * size,
        })
    }

    fn entry(&mut self) -> Result<Entry> {
        let mut entry = Entry {
            name: self.word()?,
            ..Entry::default()
        };
        self.expect('(')?;
        while !self.accept(')') {
            self.expect_word(".param")?;
            entry.params.push(self.array(false)?);
            self.accept(',');
        }
        while !self.accept('{') {
            let directive = self.word()?;
            let mut values = vec![self.number()? as u32];
            while self.accept(',') {
                values.push(self.number()? as u32);
            }
            match directive.as_str() {
                ".maxntid" | ".reqntid" => entry.max_threads = Some(values.iter().product()),
                ".minnctapersm" | ".maxnreg" => {}
                _ => return self.fail(format!("unknown directive {directive}")),
            }
        }
        while !self.accept('}') {
            self.item(&mut entry)?;
        }
        Ok(entry)
    }

    fn scope(&mut self, entry: &mut Entry) -> Result<()> {
        let scope = Scope::open(entry);
        while !self.accept('}') {
            self.item(entry)?;
        }
        entry.scopes += 1;
        scope.close(entry, entry.scopes);
        Ok(())
    }

    /// A declaration, a label, an instruction or a scope.
    fn item(&mut self, entry: &mut Entry) -> Result<()> {
        let line = self.line();
        if self.accept('{') {
            return self.scope(entry);
        }
        if self.accept('@') {
            let wanted = !self.accept('!');
            let p = self.word()?;
            let opcode = self.word()?;
            return self.instruction(entry, line, Some((p, wanted)), opcode);
        }
        let word = self.word()?;
        if self.accept(':') {
            entry.labels.push((word, entry.body.len()));
            return Ok(());
        }
        match word.as_str() {
            ".pragma" => {
                self.expect_word("\"nounroll\"")?;
                self.expect(';')
            }
            ".reg" => self.registers(entry),
            ".shared" => {
                entry.shared.push(self.array(false)?);
                self.expect(';')
            }
            _ if word.starts_with('.') => self.fail(format!("unknown directive {word}")),
            _ => self.instruction(entry, line, None, word),
        }
    }

    fn registers(&mut self, entry: &mut Entry) -> Result<()> {
        let ty = self.word()?;
        loop {
            let name = self.word()?;
            if self.accept('<') {
                let n = self.number()?;
                self.expect('>')?;
                (0..n).for_each(|i| entry.regs.push((format!("{name}{i}"), ty.clone())));
            } else {
                entry.regs.push((name, ty.clone()));
            }
            if !self.accept(',') {
                return self.expect(';');
            }
        }
    }

    fn instruction(
        &mut self,
        entry: &mut Entry,
        line: u32,
        guard: Option<(String, bool)>,
        opcode: String,
    ) -> Result<()> {
        let mut operands = Vec::new();
        if !self.accept(';') {
            operands.push(self.operand()?);
            while self.accept(',') {
                operands.push(self.operand()?);
            }
            self.expect(';')?;
        }
        entry.body.push(Statement {
            line,
            guard,
            opcode,
            operands,
        });
        Ok(())
    }

    fn operand(&mut self) -> Result<Operand> {
        if self.accept('!') {
            return Ok(Operand::Not(self.word()?));
        }
        if self.accept('{') {
            let mut parts = vec![self.operand()?];
            while self.accept(',') {
                parts.push(self.operand()?);
            }
            self.expect('}')?;
            return Ok(Operand::Vector(parts));
        }
        if self.accept('[') {
            let address = match self.operand()? {
                Operand::Name(base) => Operand::Address(Some(base), 0),
                Operand::Sum(base, c) => Operand::Address(Some(base), c),
                Operand::Imm(c) => Operand::Address(None, c),
                other => return self.fail(format!("{other:?} is no address")),
            };
            if let (Operand::Address(Some(map), 0), true) = (&address, self.accept(',')) {
                let indices = match self.operand()? {
                    Operand::Vector(indices) => indices,
                    other => return self.fail(format!("{other:?} are no indices")),
                };
                self.expect(']')?;
                return Ok(Operand::Box(map.clone(), indices));
            }
            self.expect(']')?;
            return Ok(address);
        }
        if self.accept('-') {
            self.at -= 1;
            return Ok(Operand::Imm(self.number()?));
        }
        let word = self.word()?;
        if word == "_" {
            return Ok(Operand::Sink);
        }
        if let Some(n) = number(&word) {
            return Ok(Operand::Imm(n));
        }
        if word.starts_with("0f") || word.starts_with("0d") {
            return match float(&word) {
                Some(operand) => Ok(operand),
                None => self.fail(format!("{word} is no float")),
            };
        }
        if self.accept('|') {
            return Ok(Operand::Pair(word, self.word()?));
        }
        if self.accept('+') {
            return Ok(Operand::Sum(word, self.number()?));
        }
        Ok(Operand::Name(word))
    }
}
