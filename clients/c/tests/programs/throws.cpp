// A function in C++ for tests/c.rs. A C++ exception must not leave a handler; here it does when asked to.
#include "quickfire.h"

#include <stdexcept>

static int32_t handle(void *, const qf_invocation *invocation, qf_reply *reply) {
    qf_bytes payload = qf_invocation_payload(invocation);
    if (payload.size == 5) throw std::runtime_error("as asked");
    qf_reply_write(reply, payload.data, payload.size);
    return QF_OK;
}

int main() {
    return qf_serve_main(handle, nullptr);
}
