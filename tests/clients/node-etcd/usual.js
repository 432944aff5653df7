// The usual calls of Node's etcd3, each with a line that says what came of it.
// Lines do not depend on the server: leases are numbered as they appear.
'use strict';

const { Etcd3 } = require(process.argv[3]);
const options = { hosts: process.argv[2], dialTimeout: 10000 };
const etcd = new Etcd3(options);
const leases = new Map();

setTimeout(() => process.exit(3), 45000).unref();

function lease(id) {
  if (id === '0') return '-';
  if (!leases.has(id)) leases.set(id, `L${leases.size}`);
  return leases.get(id);
}

function kv(kv) {
  return [`${kv.key}`, `${kv.value}`, kv.create_revision, kv.mod_revision, kv.version, lease(`${kv.lease}`)];
}

async function see(what, call) {
  try {
    console.log(`${what}: ${JSON.stringify(await call())}`);
  } catch (error) {
    console.log(`${what}: ${error.constructor.name} ${error.message}`);
  }
}

function next(watcher, event) {
  return new Promise((done) => watcher.once(event, done));
}

async function main() {
  await see('put', async () => (await etcd.put('/n/a').value('1')).header.revision);
  await see('put prev', async () => kv((await etcd.put('/n/a').value('2').getPrevious())));
  await see('put empty key', () => etcd.put('').value('x'));
  await see('put much', () => etcd.put('/n/much').value('x'.repeat(1700000)));
  await see('get', () => etcd.get('/n/a').string());
  await see('get none', () => etcd.get('/n/none').string());
  await see('exists', () => etcd.get('/n/a').exists());
  await etcd.put('/n/b').value('b');
  await etcd.put('/n/c').value('c');
  await see('all', async () => (await etcd.getAll().prefix('/n/').sort('Mod', 'Descend').exec()).kvs.map(kv));
  await see('keys', () => etcd.getAll().prefix('/n/').keys());
  await see('count', () => etcd.getAll().prefix('/n/').count());
  await see('limit', async () => (await etcd.getAll().prefix('/n/').limit(2).exec()).more);
  await see('old', () => etcd.get('/n/a').revision('2').string());
  await see('future', () => etcd.get('/n/a').revision('1000').string());
  await see('if', async () => {
    const done = await etcd.if('/n/a', 'Value', '==', '2').and('/n/x', 'Create', '==', 0)
      .then(etcd.put('/n/x').value('x'), etcd.get('/n/a'), etcd.delete().key('/n/c'))
      .else(etcd.get('/n/b')).commit();
    return [done.succeeded, done.header.revision, done.responses.map((r) => r.response)];
  });
  await see('stm', () => etcd.stm().transact(async (tx) => {
    const value = await tx.get('/n/a').string();
    await tx.put('/n/a').value(`${value}!`);
    return value;
  }));

  const watcher = await etcd.watch().prefix('/w/').create();
  for (const value of ['1', '2']) {
    const put = next(watcher, 'put');
    await etcd.put('/w/a').value(value);
    await see('seen', async () => kv(await put));
  }
  const gone = next(watcher, 'delete');
  await see('delete', async () => (await etcd.delete().prefix('/w/')).deleted);
  await see('seen', async () => { const one = await gone; return [`${one.key}`, one.mod_revision]; });
  await see('cancel', () => watcher.cancel());
  const past = await etcd.watch().prefix('/n/').startRevision('2').create();
  await see('past', async () => kv(await next(past, 'put')));
  await past.cancel();

  const one = etcd.lease(60, { autoKeepAlive: false });
  await see('lease', async () => lease(await one.grant()));
  await see('put leased', async () => { await one.put('/l/a').value('1'); return kv((await etcd.get('/l/a').exec()).kvs[0]); });
  await see('keep', async () => (await one.keepaliveOnce()).TTL);
  await see('revoke', async () => { await one.revoke(); return etcd.get('/l/a').string(); });
  await see('put late', () => etcd.put('/l/a').value('1').lease(4711));

  const lock = etcd.lock('lock').ttl(10);
  await see('lock', async () => { await lock.acquire(); return true; });
  await see('busy', () => etcd.lock('lock').ttl(10).acquire());
  await see('unlock', async () => { await lock.release(); return true; });

  if (etcd.election) {
    const election = etcd.election('elect', 10);
    await see('no leader', () => election.leader());
    const campaign = election.campaign('me');
    await new Promise((done) => campaign.once('elected', done));
    await see('leader', () => election.leader());
    const observer = await election.observe();
    await see('observed', async () => observer.leader() || next(observer, 'change'));
    const told = next(observer, 'change');
    await campaign.proclaim('still me');
    await see('proclaimed', () => told);
    await observer.cancel();
    await campaign.resign();
  }

  const reader = etcd.role('reader');
  const joe = etcd.user('joe');
  await see('role', async () => Object.keys(await reader.create()));
  await see('role again', () => reader.create());
  await see('permit', async () => Object.keys(await reader.grant({ permission: 'Read', range: etcd.range ? etcd.range({ prefix: '/n/' }) : { start: Buffer.from('a'), end: Buffer.from('b') } })));
  await see('permissions', async () => (await reader.permissions()).map((p) => [p.permission, `${p.range.start}`, `${p.range.end}`]));
  await see('user', async () => Object.keys(await joe.create('secret')));
  await see('add role', async () => Object.keys(await joe.addRole(reader)));
  await see('roles', async () => (await joe.roles()).map((role) => role.name));
  await see('all roles', async () => (await etcd.getRoles()).map((role) => role.name));
  await see('all users', async () => (await etcd.getUsers()).map((user) => user.name));
  await see('user none', () => etcd.user('eve').roles());
  await see('auth', () => etcd.auth.authEnable());
  await see('delete user', async () => Object.keys(await joe.delete()));
  await see('delete role', async () => Object.keys(await reader.delete()));

  await see('members', async () => (await etcd.cluster.memberList({})).members.length);
  await see('status', async () => (await etcd.maintenance.status()).version.slice(0, 2));
  await see('alarms', async () => (await etcd.maintenance.alarm({ action: 'Get' })).alarms);
  await see('hash', async () => (await etcd.maintenance.hash()).hash !== 0);
  await see('compact', async () => Object.keys(await etcd.kv.compact({ revision: '5' })));
  await see('compacted', () => etcd.get('/n/a').revision('2').string());
  const named = new Etcd3({ ...options, auth: { username: 'root', password: 'root' } });
  await see('user', () => named.get('/n/b').string());
  named.close();
  const space = etcd.namespace('/space/');
  await see('namespace', async () => { await space.put('a').value('1'); return etcd.getAll().prefix('/space/').strings(); });
  etcd.close();
  console.log('done');
}

main().then(() => process.exit(0), (error) => { console.log(error); process.exit(1); });
