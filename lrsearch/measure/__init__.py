"""Parameters and FLOPs, throughput, accuracy; and the gate that keeps measurements undisturbed."""
