import { test } from 'node:test'
import { postgresHarness } from '../engines/postgres-harness.ts'
import { whyNoPostgres } from '../servers/shared-postgres.ts'
import { checkAgainstModel } from './engine-model.ts'

test('the Postgres engine keeps what the model says it owes', { skip: await whyNoPostgres() }, async () => {
  await checkAgainstModel(postgresHarness, { runs: 8, stepsMax: 60 })
})
