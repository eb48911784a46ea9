-- Run once by the image of PostgreSQL, while its data folder is empty. The service must not be a superuser: it owns its
-- database and nothing else. The superuser loses its password, so it can only be used inside of PostgreSQL's container.
\getenv password POSTGRES_PASSWORD
CREATE ROLE delegation LOGIN PASSWORD :'password';
CREATE DATABASE delegation OWNER delegation;
ALTER ROLE postgres PASSWORD NULL;
