/** Batches that are gone, though nothing was to be deleted, are damaged: they are not taken for what retention deletes. */
import { describe } from 'node:test'
import { damage } from '../../conformance/damage.ts'
import { testOn } from '../../conformance/suite.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { losingHarness } from '../postgres-harness.ts'

describe('of a topic in Postgres that has lost a batch', { skip: await whyNoPostgres(), concurrency: true }, () => {
  damage(testOn(losingHarness), losingHarness)
})
