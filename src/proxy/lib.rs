//! Services and EndpointSlices become nf_tables rules.
