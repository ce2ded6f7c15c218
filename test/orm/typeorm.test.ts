import { DataSource, type EntityManager, type QueryRunner } from 'typeorm'
import { type Library, publishingWithin } from './suite.ts'

function transactionOn(manager: EntityManager | QueryRunner) {
  return {
    tx: manager,
    addUser: async (name: string) => void (await manager.query('INSERT INTO users VALUES ($1)', [name])),
  }
}

async function openDataSource(url: string): Promise<DataSource> {
  return new DataSource({ type: 'postgres', url }).initialize()
}

await publishingWithin("TypeORM's entity managers", async (url) => {
  const source = await openDataSource(url)
  return {
    connection: source.manager,
    transaction: (work) => source.transaction((manager) => work(transactionOn(manager))),
    close: () => source.destroy(),
  }
})

await publishingWithin("TypeORM's query runners", async (url): Promise<Library> => {
  const source = await openDataSource(url)
  return {
    connection: source,
    async transaction(work) {
      const runner = source.createQueryRunner()
      await runner.startTransaction()
      try {
        await work(transactionOn(runner))
        await runner.commitTransaction()
      } catch (error) {
        await runner.rollbackTransaction()
        throw error
      } finally {
        await runner.release()
      }
    },
    close: () => source.destroy(),
  }
})
