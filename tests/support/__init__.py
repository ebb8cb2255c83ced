"""What tests in several rooms share: real certificates, real servers, and waiting."""
