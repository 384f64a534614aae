"""The systems csrm is compared with: one file each, one interface (`interface.Baseline`)."""
