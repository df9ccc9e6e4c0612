//! Upstreams: endpoints, discovery, balancing, pools and the attempt loop.
