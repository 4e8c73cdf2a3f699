//! Random values from a seed and a number, so that one pod of a long run can be generated again.

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn of(seed: u64, number: u64) -> Self {
        let mut random = Self(seed ^ number.wrapping_mul(0xd129_0d3b_1de8_5c71));
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, not including, this one.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    /// A number of the range, both ends included.
    pub fn between(&mut self, from: i64, to: i64) -> i64 {
        from + i64::try_from(self.next() % u64::try_from(to - from + 1).unwrap()).unwrap()
    }

    /// True this many times in a hundred.
    pub fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Words that a YAML 1.1 reader, or a careless one, reads as another type.
const NASTY: &[&str] = &[
    "n",
    "y",
    "N",
    "Y",
    "no",
    "yes",
    "on",
    "off",
    "On",
    "OFF",
    "true",
    "false",
    "True",
    "null",
    "Null",
    "NULL",
    "~",
    "",
    "012",
    "0o14",
    "0b11",
    "1_000",
    "12:30",
    "190:20:30",
    "0x1F",
    "1e3",
    "1.",
    ".5",
    "+1",
    "-0",
    ".inf",
    "-.Inf",
    ".NaN",
    "=",
    "<<",
    "2001-12-14",
    "2001-12-14t21:59:43.10-05:00",
    " lead",
    "trail ",
    " ",
    "\ttab",
    "a\tb",
    "line\nbreak",
    "ends\n",
    "\n",
    "\r",
    "a\r\nb",
    "\u{85}",
    "a\u{85}b",
    "\u{2028}",
    "\u{2029}x",
    "\u{feff}bom",
    "emoji 🚢",
    "𝔘",
    "é",
    "e\u{301}",
    "\u{1}",
    "\u{1b}[0m",
    "\u{7f}",
    "\u{80}",
    "\u{9f}",
    "\"",
    "'",
    "it's",
    "\"quoted\"",
    "\\",
    "\\n",
    "#",
    "a #b",
    "#b",
    ": ",
    "a: b",
    "a:",
    "- ",
    "- a",
    "-",
    "--",
    "---",
    "...",
    "--- a",
    "!",
    "!!binary aGk=",
    "%",
    "%YAML 1.1",
    "@",
    "`",
    "&a",
    "*a",
    "|",
    ">",
    "|-",
    "{",
    "}",
    "[",
    "]",
    "{a: b}",
    "[a, b]",
    ",",
    "?",
    "? a",
    "<html>&amp;",
    "\u{fffe}",
    "\u{ffff}",
    "\u{e000}",
    "\u{10ffff}",
    "$",
    "$$",
    "$(",
    "$(A)",
    "$$(A)",
    "$(A)$(B)",
    "$(NOT_THERE)",
    "$(POD_IP):80",
    "${A}",
    "$(A",
];

impl Random {
    /// Any text, most of all what readers stumble over. Without NUL, which no process can be given.
    pub fn text(&mut self) -> String {
        match self.below(20) {
            0..=9 => self.pick(NASTY).to_owned(),
            10..=13 => (0..=self.below(3)).map(|_| self.pick(NASTY)).collect(),
            14..=16 => self.word(12),
            17 => {
                let length = self.below(60);
                (0..length).map(|_| self.character()).collect()
            }
            18 => self.number().to_string(),
            _ if self.percent(4) => format!("{}{}", "long line ".repeat(500), self.pick(NASTY)),
            _ => format!("{}\n  {}\n", self.text(), self.word(8)),
        }
    }

    fn character(&mut self) -> char {
        let end = *[0x80, 0x800, 0x1_0000, 0x11_0000]
            .get(self.below(4))
            .unwrap();
        loop {
            let at = u32::try_from(self.between(1, end - 1)).unwrap();
            // Go writes U+FFFD for what was no text, so a pod with it is refused; see
            // `environment::captured`
            if let Some(found) = char::from_u32(at).filter(|it| *it != '\u{fffd}') {
                return found;
            }
        }
    }

    /// A number that is often at an end of its range.
    pub fn number(&mut self) -> i64 {
        match self.below(6) {
            0 => 0,
            1 => 1,
            2 => i64::from(i32::MAX),
            3 => self.between(1, 1_000_000),
            _ => self.between(1, 100),
        }
    }

    /// Lower-case letters, from one to this many.
    pub fn word(&mut self, most: usize) -> String {
        let length = 1 + self.below(most);
        (0..length)
            .map(|_| char::from(b'a' + u8::try_from(self.below(26)).unwrap()))
            .collect()
    }

    /// A DNS label, sometimes one that reads as another type, sometimes of full length.
    pub fn label(&mut self) -> String {
        match self.below(12) {
            0 => self
                .pick(&[
                    "n", "y", "no", "on", "off", "yes", "true", "null", "012", "1e3", "0x1f", "12",
                ])
                .to_owned(),
            1 => format!("{}{}", self.word(1), "0".repeat(62)),
            2 => format!("{}-{}", self.word(4), self.word(4)),
            _ => self.word(10),
        }
    }

    /// A DNS subdomain.
    pub fn subdomain(&mut self) -> String {
        if self.percent(70) {
            self.label()
        } else {
            format!("{}.{}", self.label(), self.label())
        }
    }

    /// The key of a label or annotation, or another qualified name.
    pub fn key(&mut self) -> String {
        match self.below(4) {
            0 => format!("{}.io/{}", self.word(6), self.word(8)),
            1 => self
                .pick(&["n", "y", "No", "1_0", "012", "x.y_z-0", "NULL", "1e3"])
                .to_owned(),
            _ => self.word(8),
        }
    }

    /// The value of a label.
    pub fn tag(&mut self) -> String {
        self.pick(&[
            "", "n", "y", "on", "012", "1_000", "0x1F", "1e3", "null", "v1.2.3", "a_b", "A-b",
            "true", "1.0",
        ])
        .to_owned()
    }

    pub fn address(&mut self) -> String {
        if self.percent(80) {
            format!(
                "10.{}.{}.{}",
                self.below(256),
                self.below(256),
                self.below(256)
            )
        } else {
            format!("fd00::{:x}", 1 + self.below(0xffff))
        }
    }
}
