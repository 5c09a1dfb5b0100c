"""One machine's mesh: starts every service and Envoy, keeps them running, ends them all."""
