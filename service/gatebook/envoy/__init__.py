"""Envoy's external authorization protocol, as far as it is served; generated from proto/gatebook/envoy."""
