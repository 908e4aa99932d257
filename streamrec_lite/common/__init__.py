"""What every other package needs: errors, files, devices and seeds, symbols and batches."""
