//! Where there are no namespaces, there is no sandbox, and that is said.

use std::{fs::File, io};

use crate::confine::Launch;

pub(crate) fn run(_: &Launch, _: &File) -> io::Result<i32> {
    let message = "a strict sandbox cannot be had: it needs Linux";
    Err(io::Error::new(io::ErrorKind::Unsupported, message))
}
