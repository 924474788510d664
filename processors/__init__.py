"""What is computed: functions and kernels without input or output of their own."""
