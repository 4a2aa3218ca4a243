"""What runs beside the data: readers, the policy, the ledger, and the local training loop."""
