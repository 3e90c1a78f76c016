"""Dynamical low-rank training: layers of weight U S V^T, integrators of their gradient flow, and truncation."""
