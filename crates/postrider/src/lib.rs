//! Postrider, the self-hosted webhook server: reads the configuration once, wires the parts, drains at shutdown.
