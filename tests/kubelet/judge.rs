//! The other side: one process for each Kubernetes version, asked in batches.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What comes from outside a pod into the environment of its containers; see
/// `judge/meaning.go`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct World {
    pub services: BTreeMap<String, String>,
    pub env_from: BTreeMap<String, BTreeMap<String, String>>,
    pub values: BTreeMap<String, BTreeMap<usize, String>>,
    pub addresses: Vec<[String; 2]>,
}

#[derive(Debug, Default, Serialize)]
pub struct Request<'a> {
    pub id: usize,
    pub node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<&'a Path>,
    /// Ask for the feature gates.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gates: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world: Option<&'a World>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Answer {
    id: usize,
    #[serde(default)]
    pub error: String,
    #[serde(default)]
    pub pod: Value,
    /// At each address of the world.
    #[serde(default)]
    pub meaning: Vec<Meaning>,
    /// Feature gates by default.
    #[serde(default)]
    pub gates: BTreeMap<String, bool>,
    /// Of a directory: pods by UID.
    #[serde(default)]
    pub pods: BTreeMap<String, Value>,
    /// Of a directory: errors by path.
    #[serde(default)]
    pub refused: BTreeMap<String, String>,
}

/// What a kubelet does with the words that it expands or looks up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Meaning {
    pub containers: BTreeMap<String, Process>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Process {
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub probes: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub ports: BTreeMap<String, String>,
}

impl Process {
    /// Does it have an invalid character?
    pub fn is_garbled(&self) -> bool {
        self.probes
            .values()
            .flatten()
            .any(|word| word.contains('\u{fffd}'))
    }
}

/// API server and kubelet of one version.
pub struct Judge {
    pub version: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Judge {
    /// Starts the program of a version: its file name is the version.
    pub fn start(program: &Path) -> Self {
        // most of what it allocates is garbage at once: the collector has nothing to find, four
        // times as seldom
        let mut command = Command::new(program);
        command
            .env("GOGC", "400")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (
            child.stdin.take().unwrap(),
            BufReader::new(child.stdout.take().unwrap()),
        );
        Self {
            version: program.file_name().unwrap().to_string_lossy().into_owned(),
            child,
            input,
            output,
        }
    }

    /// The answers in the order of the requests, whose `id` is their position.
    pub fn ask(&mut self, requests: &[Request<'_>]) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = requests.iter().map(|_| None).collect();
        let (input, output) = (&mut self.input, &mut self.output);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for request in requests {
                    let mut line = serde_json::to_vec(request).unwrap();
                    line.push(b'\n');
                    input.write_all(&line).unwrap();
                }
                input.flush().unwrap();
            });
            let mut line = String::new();
            for _ in requests {
                line.clear();
                assert!(
                    output.read_line(&mut line).unwrap() > 0,
                    "the judge has ended"
                );
                let answer: Answer = serde_json::from_str(&line).unwrap();
                let id = answer.id;
                assert!(
                    answers[id].replace(answer).is_none(),
                    "the judge has answered {id} twice"
                );
            }
        });
        answers.into_iter().map(Option::unwrap).collect()
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
