"""Many runs, one picture, one honest verdict: reads run folders, and never writes into them."""
