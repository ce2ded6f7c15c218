import { test } from 'node:test'
import { conformance } from '../conformance/index.ts'
import { whyNoPostgres } from '../servers/shared-postgres.ts'
import { postgresHarness } from './postgres-harness.ts'

const reason = await whyNoPostgres()

if (reason) test('the Postgres engine conforms to the engine contract', { skip: reason })
else conformance('the Postgres engine', postgresHarness)
