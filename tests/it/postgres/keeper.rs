//! A folder and its processes, both removed when the test program ends, even if it is killed.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

/// Executes commands, one per line, until its input ends; the pipe also closes if its owner is
/// killed. The script creates the folder and is the parent of every server it starts, so it can
/// remove them all.
const SCRIPT: &str = r#"
trap '' HUP INT PIPE TERM
umask 077
folder=${1:-$(mktemp -d "${TMPDIR:-/tmp}/persistify-XXXXXX")}
cd "$folder" || exit 1
echo "$folder"
while read -r order; do
    eval "$order" </dev/null >>log 2>&1
    echo $?
done
if [ -n "$pid" ]; then
    kill -s "${end:-QUIT}" "$pid"
    wait "$pid"
fi
cd / && rm -rf "$folder"
"#;

/// Like `SCRIPT`, with a small file system that only these processes see.
const SCRIPT_WITH_SMALL_DISK: &str = r#"
trap '' HUP INT PIPE TERM
folder=$(mktemp -d "${TMPDIR:-/tmp}/persistify-XXXXXX") && mkdir "$folder/small" &&
    chown "$1:$2" "$folder" &&
    mount -t tmpfs -o "size=$3,uid=$1,gid=$2,mode=700" tmpfs "$folder/small" &&
    setpriv --reuid "$1" --regid "$2" --clear-groups sh -c "$0" sh "$folder"
umount "$folder/small"
rm -rf "$folder"
"#;

/// The users to run as if the tests run as root, which Postgres refuses.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// A shell that owns a folder and the process running in it.
pub(crate) struct Keeper {
    folder: PathBuf,
    orders: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    shell: Mutex<Child>,
}

impl Keeper {
    /// Starts a shell in a new folder.
    pub(crate) fn new() -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "sh"]);
        if let Some((uid, gid)) = unprivileged() {
            shell.uid(uid).gid(gid);
        }
        Self::spawn(&mut shell).expect("`sh` and `mktemp` work")
    }

    /// Starts a shell in a new folder, in which `small` is a file system of `bytes` bytes; `None`
    /// if that cannot be mounted, which takes root on Linux.
    pub(crate) fn with_small_disk(bytes: u64) -> Option<Self> {
        let (uid, gid) = unprivileged()?;
        let numbers = [u64::from(uid), u64::from(gid), bytes].map(|n| n.to_string());
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "sh", "-c", SCRIPT_WITH_SMALL_DISK, SCRIPT]);
        Self::spawn(shell.args(numbers))
    }

    fn spawn(shell: &mut Command) -> Option<Self> {
        // In its own process group, so that a Ctrl-C does not end it with the tests.
        let shell = shell.process_group(0).stdin(Stdio::piped());
        let shell = shell.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = shell.spawn().ok()?;
        let to = shell.stdin.take().unwrap();
        let mut from = BufReader::new(shell.stdout.take().unwrap());
        let mut folder = String::new();
        from.read_line(&mut folder).ok()?;
        let folder = PathBuf::from(folder.strip_suffix('\n')?);
        Some(Self {
            folder,
            orders: Mutex::new(Some((to, from))),
            shell: Mutex::new(shell),
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a command in the folder and returns its exit status.
    pub(crate) fn order(&self, order: &str) -> i32 {
        let mut orders = self.orders.lock().unwrap();
        let (to, from) = orders.as_mut().unwrap();
        writeln!(to, "{order}").unwrap();
        let mut answer = String::new();
        from.read_line(&mut answer).unwrap();
        answer.trim().parse().expect("the shell answers")
    }

    /// Runs a command that must succeed.
    pub(crate) fn run(&self, order: &str) {
        let status = self.order(order);
        assert_eq!(status, 0, "`{order}` failed:\n{}", self.log());
    }

    /// The output so far.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders.get_mut().unwrap().take();
        self.shell.get_mut().unwrap().wait().unwrap();
    }
}

/// The user and group to run as instead of root; `None` if the tests do not run as root.
fn unprivileged() -> Option<(u32, u32)> {
    let ours = tempfile::tempfile().unwrap().metadata().unwrap();
    if ours.uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = UNPRIVILEGED.iter().find_map(|name| {
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        let user = users.lines().map(fields).find(|user| user[0] == *name)?;
        Some((user.get(2)?.parse().ok()?, user.get(3)?.parse().ok()?))
    });
    Some(found.expect("/etc/passwd has a user `postgres` or `nobody`"))
}
