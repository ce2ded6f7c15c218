-- Once, by an administrator: who makes the tables, and who uses them.
CREATE ROLE posthorn_owner LOGIN PASSWORD '...';
CREATE ROLE posthorn_app LOGIN PASSWORD '...';
CREATE SCHEMA posthorn AUTHORIZATION posthorn_owner;

-- Then, by an administrator or as posthorn_owner: what those who use the tables may do, with those of later versions too.
GRANT USAGE ON SCHEMA posthorn TO posthorn_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA posthorn TO posthorn_app;
ALTER DEFAULT PRIVILEGES FOR ROLE posthorn_owner IN SCHEMA posthorn
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO posthorn_app;
