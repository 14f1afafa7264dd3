"""Alerts: what admins are told, by webhook, once each, also when the receiver or we were down."""
