//! `echo`: gives back what it was given. Copies once, from the request's place in the ring to the result's.

use quickfire_client::serve::{Call, FunctionError, Reply};

/// The function.
pub fn handle(call: &Call<'_>, reply: &mut Reply) -> Result<(), FunctionError> {
    reply.write(call.payload());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_come_back_as_they_came() {
        for payload in [&b""[..], b"hello", &[0xFF; 5_000]] {
            let mut reply = Reply::new();
            handle(&Call::with_payload(payload), &mut reply).unwrap();
            assert_eq!(reply.bytes(), payload);
        }
    }
}
