//! Tests of kinds over data that lies beside them.

mod corpus;
