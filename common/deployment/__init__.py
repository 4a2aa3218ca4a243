"""What coordinator and agent have in common on a machine: Flower's processes, certificates, health, metrics, logs."""
