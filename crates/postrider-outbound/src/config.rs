//! What an operator can set about outgoing requests.
