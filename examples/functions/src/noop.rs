//! `noop`: gives back nothing. What a call to it costs is what Quickfire costs.

use quickfire_client::serve::{Call, FunctionError, Reply};

/// The function.
pub fn handle(_call: &Call<'_>, _reply: &mut Reply) -> Result<(), FunctionError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_back_whatever_came() {
        let mut reply = Reply::new();
        handle(&Call::with_payload(b"hello"), &mut reply).unwrap();
        assert_eq!(reply.bytes(), b"");
    }
}
